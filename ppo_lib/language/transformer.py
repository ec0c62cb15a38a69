"""A causal transformer in plain torch, and text drawn from it word by word.

One network serves as all four models of a PPO run: its ``logits`` make it a policy or the
reference, its ``values`` a critic or, read at the last token, a reward model.
Tokens are time-major as everywhere, ``[T, N]``; row 0 of what a model reads is the prompt.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from ppo_lib.distributions import Categorical
from ppo_lib.validate import require

Cache = list[tuple[Tensor, Tensor]]  #: keys and values of each layer, ``[N, heads, T, D / heads]``


def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """softmax(q·k / √d) v over all places that are not later (eq-attention).

    Args:
        queries: ``[…, T, d]``, of the last T places.
        keys: ``[…, L, d]``, of all L ≥ T places.
        values: ``[…, L, d]``.

    Returns:
        ``[…, T, d]``.
    """
    t, length = queries.shape[-2], keys.shape[-2]
    require(length >= t, f"keys has {length} places, expected at least the {t} of queries")
    later = torch.ones(t, length, dtype=torch.bool, device=queries.device).triu(1 + length - t)
    scores = queries @ keys.transpose(-2, -1) / queries.shape[-1] ** 0.5
    return scores.masked_fill(later, -torch.inf).softmax(-1) @ values


class Block(nn.Module):
    """A layer: every place reads the earlier ones, then thinks by itself; both are added to it.

    Its weights are left for `LanguageModel` to draw.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries_keys_values = skip_init(nn.Linear, width, 3 * width)
        self.out = skip_init(nn.Linear, width, width)
        self.mlp = nn.Sequential(
            skip_init(nn.Linear, width, 4 * width),
            nn.ReLU(),
            skip_init(nn.Linear, 4 * width, width),
        )

    def forward(
        self, x: Tensor, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """``[N, T, width]`` to the same, and the keys and values of all places so far."""
        heads = self.queries_keys_values(self.before_attention(x)).unflatten(
            -1, (3, self.heads, -1)
        )
        queries, keys, values = heads.permute(2, 0, 3, 1, 4)
        if past is not None:
            keys, values = torch.cat([past[0], keys], 2), torch.cat([past[1], values], 2)
        x = x + self.out(attend(queries, keys, values).transpose(1, 2).flatten(-2))
        return x + self.mlp(self.before_mlp(x)), (keys, values)


class LanguageModel(nn.Module):
    """A causal transformer with two heads: logits of the next token, and one number a place.

    Args:
        vocabulary: V, the number of tokens.
        context: the largest number of places, the prompt's included.
        generator: draws the initial weights, and nothing else does; the head of the values
            starts at 0.
        width: of a place, a multiple of heads.
        layers: the number of blocks.
        heads: of attention in each.
    """

    def __init__(
        self,
        vocabulary: int,
        context: int,
        generator: torch.Generator,
        *,
        width: int = 64,
        layers: int = 2,
        heads: int = 4,
    ) -> None:
        super().__init__()
        require(width % heads == 0, f"width is {width}, expected a multiple of heads, {heads}")
        # skip_init: torch would draw weights from its global generator, which is not ours to move.
        self.token = skip_init(nn.Embedding, vocabulary, width)
        self.place = skip_init(nn.Embedding, context, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.logits = skip_init(nn.Linear, width, vocabulary)
        self.value = skip_init(nn.Linear, width, 1)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                scale = 0.1 if name in ("token.weight", "place.weight") else weight.shape[1] ** -0.5
                nn.init.normal_(weight, std=scale, generator=generator)
            elif "norm" not in name and "before" not in name:
                nn.init.zeros_(weight)
        nn.init.zeros_(self.value.weight)

    def forward(self, tokens: Tensor, cache: Cache | None = None) -> tuple[Tensor, Tensor]:
        """What follows each place, given it and all before it.

        Args:
            tokens: ``[T, N]`` int64; with a cache, the T tokens that come next.
            cache: what `LanguageModel` has put there for the places before, which may be none;
                it is extended in place.

        Returns:
            ``(logits, values)``, ``[T, N, V]`` and ``[T, N]``.
        """
        require(tokens.ndim == 2, f"tokens has shape {tuple(tokens.shape)}, expected [T, N]")
        start = cache[0][0].shape[2] if cache else 0
        places = torch.arange(start, start + len(tokens), device=tokens.device)
        context = self.place.num_embeddings
        require(
            len(places) + start <= context,
            f"tokens end at place {len(places) + start}, expected at most {context}",
        )
        x = self.token(tokens.T) + self.place(places)
        kept = []
        for i, block in enumerate(self.blocks):
            x, pair = block(x, cache[i] if cache else None)
            kept.append(pair)
        if cache is not None:
            cache[:] = kept
        x = self.norm(x).transpose(0, 1)
        return self.logits(x), self.value(x).squeeze(-1)


@torch.no_grad()
def generate(
    model: LanguageModel,
    prompts: Tensor,
    limit: int,
    end: int,
    generator: torch.Generator,
    *,
    use_cache: bool = True,
) -> Tensor:
    """Draw a response to each prompt, all of them a token at a time.

    Args:
        model: whose logits are drawn from, as they are.
        prompts: ``[N]`` int64, a token each.
        limit: T, the largest number of tokens of a response.
        end: the token that ends a text, and pads it.
        generator: where the random numbers come from.
        use_cache: read each token once and keep its keys and values, or read all again each time.

    Returns:
        ``[T, N]`` int64.
    """
    require(prompts.ndim == 1, f"prompts has shape {tuple(prompts.shape)}, expected [N]")
    require(limit >= 1, f"limit is {limit}, expected at least 1")
    cache: Cache = []
    tokens, ended = prompts[None], torch.zeros_like(prompts, dtype=torch.bool)
    for _ in range(limit):
        logits, _ = model(tokens[-1:], cache) if use_cache else model(tokens)
        drawn = Categorical.sample(logits[-1], generator).masked_fill(ended, end)
        ended = ended | (drawn == end)
        tokens = torch.cat([tokens, drawn[None]])
    return tokens[1:]


def read(model: LanguageModel, prompts: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One pass over whole responses: what a policy says of each token, and a critic before it.

    The logits at a place are those of the *next* token; so row t of all three belongs to the
    prefix s_t before token t, and the last token is an action and no state that is acted in.

    Args:
        model: gradients flow through it.
        prompts: ``[N]`` int64.
        tokens: ``[T, N]`` int64.

    Returns:
        ``(log_probs, values, logits)``: ``[T, N]``, log π(a_t | s_t); ``[T, N]``, V(s_t); and
        ``[T, N, V]``.
    """
    logits, values = model(torch.cat([prompts[None], tokens[:-1]]))
    return Categorical.log_prob(logits, tokens), values, logits


def scores(model: LanguageModel, prompts: Tensor, tokens: Tensor, last: Tensor) -> Tensor:
    """r̂(y): the number that a reward model has at the last token of each response.

    Args:
        model: gradients flow through it.
        prompts: ``[N]`` int64.
        tokens: ``[T, N]`` int64.
        last: ``[T, N]`` bool, True once a column, of `ppo_lib.language.tokens.last_token`.

    Returns:
        ``[N]``.
    """
    _, values = model(torch.cat([prompts[None], tokens]))
    return (values[1:] * last).sum(0)
