// Written by tools/cliff.py.
Kit.cliffStart = [[1.11, -0.31, 0.01], [1.76, 1.27, -0.26], [0.62, -0.22, 0.09]];
