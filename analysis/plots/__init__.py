"""One figure a module: `draw(view, width)` returns a matplotlib Figure. Widths in inches: one column 3.5, a page 7."""
