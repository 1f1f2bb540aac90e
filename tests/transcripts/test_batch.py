"""Batches: padding, masks and addresses."""

import numpy as np
import pytest
import torch

from cotinterp.tasks import get_task
from cotinterp.transcripts.batch import collate
from cotinterp.transcripts.problems import sample_problems, solve
from cotinterp.transcripts.regimes import Token, regime_names
from cotinterp.transcripts.render import Transcript, render, render_for_training
from cotinterp.transcripts.roles import ROLE_CODE, Role
from cotinterp.transcripts.vocabulary import Vocabulary

SUM = get_task("digit-sum")
VOCABULARY = Vocabulary.of(SUM)


def batch_of(regime, *rows):
    return collate([render(SUM, solve(SUM, np.array([row]))[0], regime) for row in rows], VOCABULARY)


def test_tokens_and_padding():
    batch = batch_of("direct", [3, 4], [3, 4, 5, 6])
    assert VOCABULARY.decode(batch.tokens[0].tolist()) == "<3+4>7#"
    assert batch.tokens.shape == (2, len("<3+4+5+6>18#"))
    assert batch.tokens[0, 7:].eq(VOCABULARY.pad).all()
    assert batch.length.tolist() == [7, 12]
    assert batch.n_prompt.tolist() == [5, 9]


def test_operands_and_totals_of_problems_of_several_lengths():
    batch = batch_of("cot", [3, 4], [3, 4, 5, 6])
    assert batch.operands.tolist() == [[3, 4, -1, -1], [3, 4, 5, 6]]
    assert batch.totals.tolist() == [[3, 7, -1, -1], [3, 7, 12, 18]]
    assert [problem.answer for problem in batch.problems] == [7, 18]
    assert batch[[0]].totals.tolist() == [[3, 7]]


@pytest.mark.parametrize("regime", regime_names())
def test_the_loss_is_on_the_response_and_nothing_else(regime):
    batch = batch_of(regime, [3, 4], [3, 4, 5, 6])
    for row, transcript in enumerate(batch.transcripts):
        masked = [s for s, on in zip(transcript.text, batch.loss_mask[row].tolist(), strict=False) if on]
        learned = [
            t.symbol for t in transcript.tokens[transcript.n_prompt :] if (regime, t.role) != ("tool", Role.TOTAL)
        ]
        assert masked == learned
        assert not batch.loss_mask[row, len(transcript) :].any()


def test_what_is_not_scored_is_no_part_of_the_loss():
    whole = render(SUM, solve(SUM, np.array([[3, 4, 5]]))[0], "cot")
    tokens = tuple(t._replace(scored=not (t.role is Role.TOTAL and t.step == 2)) for t in whole.tokens)
    batch = collate([Transcript(whole.problem, "cot", tokens), whole], VOCABULARY)
    assert torch.equal(batch.loss_mask[0] ^ batch.loss_mask[1], batch.mask(Role.TOTAL, 2)[0])
    assert batch.loss_mask[1].sum() == len(whole.response)
    assert torch.equal(batch[[0]].loss_mask[0], batch.loss_mask[0])
    assert torch.equal(batch.to("cpu").scored, batch.scored)


def test_addresses_follow_the_value_not_the_position():
    batch = batch_of("cot", [3, 4, 5], [9, 8, 1])
    assert [t.text for t in batch.transcripts] == ["<3+4+5>{3+4=7;7+5=12}12#", "<9+8+1>{9+8=17;17+1=18}18#"]
    assert batch.where(Role.TOTAL, 2).tolist() == [18, 20]
    assert batch.where(Role.TOTAL, 2, part=-1).tolist() == [19, 21]
    assert batch.where(Role.TOTAL, 1, part=-1).tolist() == [12, 13]
    assert batch.where(Role.OPERAND, 1).tolist() == [3, 3]
    assert batch.where(Role.END).tolist() == [23, 25]
    assert batch.mask(Role.TOTAL).sum(dim=1).tolist() == [3, 4]
    rows = torch.arange(2)
    assert batch.value[rows, batch.where(Role.TOTAL, 1)].tolist() == [7, 17]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ((Role.TOTAL, 3), r"total of step 3.*steps \[1, 2\]"),
        ((Role.TOTAL,), "stands 2 times"),
        ((Role.TOTAL, 1, 1), "stands 0 times"),
        ((Role.PAD, 1), "Roles there: prompt_start"),
    ],
)
def test_an_address_that_is_not_one_place_is_refused(address, message):
    with pytest.raises(KeyError, match=message):
        batch_of("cot", [3, 4, 5]).where(*address)


def test_an_unknown_role_is_refused():
    with pytest.raises(ValueError, match="unknown role 'totel'. Nearest: \\['total'\\]"):
        batch_of("cot", [3, 4, 5]).mask("totel")


def test_rows_of_a_batch_are_the_batch_of_the_rows():
    problems = sample_problems(SUM, 3, 8, split="train", rng=np.random.default_rng(0))
    transcripts = [render(SUM, problem, "cot") for problem in problems]
    rows = [5, 2]
    part, direct = collate(transcripts, VOCABULARY)[rows], collate([transcripts[row] for row in rows], VOCABULARY)
    for name in ("tokens", "role", "step", "part", "value", "scored", "length", "n_prompt"):
        assert torch.equal(getattr(part, name), getattr(direct, name))
    assert part.transcripts == direct.transcripts


@pytest.mark.parametrize("regime", regime_names())
def test_a_batch_is_its_tokens_one_by_one(regime):
    problems = [p for k in (2, 4, 5) for p in sample_problems(SUM, k, 6, split="train", rng=np.random.default_rng(0))]
    rngs = map(np.random.default_rng, range(len(problems)))
    transcripts = [render_for_training(SUM, x, regime, rng) for x, rng in zip(problems, rngs, strict=True)]
    # The same tokens as other objects: nothing may rest on which of them are shared.
    copies = [Transcript(x.problem, x.regime, tuple(Token(*token) for token in x.tokens)) for x in transcripts]
    for batch in (collate(transcripts, VOCABULARY), collate(copies, VOCABULARY)):
        for row, transcript in enumerate(transcripts):
            fields = (batch.tokens, batch.role, batch.step, batch.part, batch.value, batch.scored)
            found = [field[row].tolist() for field in fields]
            rest = batch.tokens.shape[1] - len(transcript)
            expected = [
                (VOCABULARY.token(t.symbol), ROLE_CODE[t.role], t.step, t.part, t.value, t.scored)
                for t in transcript.tokens
            ]
            padding = (VOCABULARY.pad, ROLE_CODE[Role.PAD], -1, 0, -1, True)
            assert list(zip(*found, strict=True)) == expected + [padding] * rest
        assert batch.scored.dtype == torch.bool
        assert {getattr(batch, name).dtype for name in ("tokens", "role", "length", "n_prompt")} == {torch.long}


def test_a_symbol_that_is_not_in_the_vocabulary_is_refused():
    whole = render(SUM, solve(SUM, np.array([[3, 4]]))[0], "cot")
    strange = Transcript(whole.problem, "cot", (*whole.tokens, Token("x", Role.END)))
    with pytest.raises(KeyError, match="symbol 'x' is not in the vocabulary"):
        collate([whole, strange], VOCABULARY)


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match="at least one transcript"):
        collate([], VOCABULARY)
