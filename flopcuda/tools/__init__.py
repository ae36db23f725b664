"""Other tools' numbers for a model, and the ledger that leads to each of them from the counted one.

``thop``, ``fvcore``, ``ptflops`` and ``torch_flop_counter`` each run one tool and read its own figures, by the kinds of
work that ``kinds`` names; ``recurrent`` takes apart those of recurrent layers, ``convolutions`` and ``unseen`` observe
what tools count in another way or not at all. ``ledger`` accounts for a tool's number without knowing which tool it is;
``comparison`` runs all of it on copies of the model. ``training`` does so for a backward pass, which FlopCounterMode
alone counts.
"""

from flopcuda.tools.article import article_2021
from flopcuda.tools.comparison import ALL, compare
from flopcuda.tools.report import CountedLayer, Term, ToolReport
from flopcuda.tools.training import take_step, trainable_copy, training_step

__all__ = [
    "ALL",
    "CountedLayer",
    "Term",
    "ToolReport",
    "article_2021",
    "compare",
    "take_step",
    "trainable_copy",
    "training_step",
]
