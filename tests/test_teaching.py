"""The plans for teachers: an hour has sixty minutes, and its sections are those of the chapter."""

import re

import ledger
import nbformat
import pytest
import slides
import teaching

HOURS = teaching.lectures()


def test_every_chapter_has_its_hour() -> None:
    assert HOURS.keys() == ledger.chapters().keys()


@pytest.mark.parametrize("number", HOURS)
def test_an_hour_has_sixty_minutes_and_ends_with_an_exercise_or_has_one(number: int) -> None:
    assert sum(part.minutes for part in HOURS[number]) == 60
    assert any(part.exercise for part in HOURS[number])


@pytest.mark.parametrize("number", HOURS)
def test_sections_are_shown_in_the_order_of_the_chapter(number: int) -> None:
    cells = nbformat.read(ledger.chapters()[number], as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    titles = re.findall(r"^## (.+)$", text, re.MULTILINE)
    places = [titles.index(title) for part in HOURS[number] for title in part.sections]
    assert places == sorted(places)


def test_a_link_to_slides_says_which(tmp_path) -> None:
    slide = '<section class="slide" id="slide-{}" data-in="{}">'
    deck = [slide.format(1, ""), slide.format(2, "a"), slide.format(3, "a b"), slide.format(4, "c")]
    (tmp_path / "01-x.html").write_text("\n".join(deck), encoding="utf-8")
    link = '<a class="slides" href="../slides/01-x.html" data-sections="{}">slides</a>'
    page = slides.numbered(link.format("a c") + link.format("b b"), tmp_path)
    assert re.findall(r"#slide-(\d)\">([^<]*)<", page) == [("2", "2 to 4"), ("3", "3")]
    with pytest.raises(ValueError, match=r"01-x\.html has no slide of d"):
        slides.numbered(link.format("d a"), tmp_path)
