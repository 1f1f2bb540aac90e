"""The numbers that the claims are about, each a function of the cells of one seed.

`cot`, `direct` and `filler` are the regimes; accuracies are free-running and on held-out problems unless said. Every
number of operands counts alike, however many problems there are of it.
"""
