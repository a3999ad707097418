"""Result tables -> metrics, figures and reports. Never imports the engine.

Start with `metrics.summarize` (what the numbers are), `load.load_run` and `load.load_sweep` (run folders back as
tables), `figures.write_figures`. matplotlib, polars and rich are imported only by the functions that need them.
"""

from analysis.figures import write_figures
from analysis.load import Run, frame, load_run, load_sweep
from analysis.metrics import summarize
from analysis.report import write_report
from analysis.table import print_table

__all__ = ["Run", "frame", "load_run", "load_sweep", "print_table", "summarize", "write_figures", "write_report"]
