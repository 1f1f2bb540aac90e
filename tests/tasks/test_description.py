"""Symbols of prompts are shared where they are alike."""

from cotinterp.tasks.task import PromptSymbol, bracket_symbol, operand_symbol, operator_symbol


def test_symbols_by_hand():
    assert operand_symbol("7", 2, 7) == PromptSymbol("7", "operand", 2, 7, 0)
    assert operator_symbol("+", 2) == PromptSymbol("+", "operator", 2, -1, 0)
    assert bracket_symbol(")", 3, 1) == PromptSymbol(")", "bracket", 3, -1, 1)


def test_equal_symbols_are_one_object():
    assert operand_symbol("7", 2, 7) is operand_symbol("7", 2, 7)
    assert operator_symbol("+", 2) is not operator_symbol("+", 3)
