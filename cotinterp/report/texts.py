"""What the report says around each figure: the question, how to read the answer, and what it does not establish."""

from typing import TypedDict


class SectionText(TypedDict):
    """The words of one section."""

    title: str
    question: str
    reading: str
    limits: str


QUESTION = (
    "What do written reasoning tokens buy a transformer of fixed depth, and by which mechanism? Pairs of toy "
    "models that differ in nothing but the response string (the answer alone, or every running total and then the "
    "answer) are trained, measured and taken apart."
)

VERDICT_WORDS: dict[str, str] = {
    "supported": (
        "every number of the claim lies on the side of its threshold that the claim predicts, by more than chance "
        "(the largest one-sided p-value, corrected for all claims and tasks after Holm 1979, is at most 0.05), and "
        "every control passes; it is about most models trained so, and the reason says about how many"
    ),
    "partly supported": "some predictions are shown to hold, and some are shown to fail",
    "not supported": (
        "a prediction is shown to fail and none is shown to hold, or one fails that the claim cannot do without"
    ),
    "mixed": (
        "models trained alike differ: at some seeds a prediction is shown to fail, each over its own problems, and "
        "over all seeds it is not"
    ),
    "inconclusive": (
        "nothing is shown: too few seeds or cases, a number that was not measured, a control that does not pass, or "
        "intervals on both sides of a threshold; the reason then says what could have been seen"
    ),
}

TEXTS: dict[str, SectionText] = {
    "verdicts": {
        "title": "Verdicts",
        "question": "Which claims about written reasoning does the evidence bear out?",
        "reading": (
            "One row is one claim on one task. The effect is the claim's first number over all seeds, with a 95% "
            "interval over seeds and problems; points are percentage points. Claims, rivals and thresholds were "
            "declared before the other seeds were measured. Hover over a reason for the controls. The figure shows "
            "every number of every claim: the line is its threshold, the shade the side that the claim predicts, a "
            "ring one seed; each row has its own axis."
        ),
        "limits": (
            "A verdict is about these tasks, sizes and training budgets, and about what its criteria measure. A claim "
            "that is supported has outlived the rivals it names, not those that nobody thought of; one that is not "
            "supported may hold for other models. The sections linked as evidence show reference models of a single "
            "seed in detail; the verdicts rest on all seeds. The training seed is the unit of replication, and they "
            "are few: small effects would have been missed, and so would a kind of model that is rare."
        ),
    },
    "accuracy": {
        "title": "Accuracy by K",
        "question": "How often is the answer exactly right, by number of operands, when the model writes on its own?",
        "reading": (
            "One point is the share of distinct problems whose decoded answer is exactly right; bars are 95% "
            "Wilson intervals over problems. Solid lines: held-out problems, never trained on; dotted: problems of "
            "the train split. Points of one K are set apart sideways so that intervals do not cover each other. "
            "Solid far below dotted is what storing the training answers would leave. Small K have few held-out "
            "problems, so their intervals are wide. Hover for counts."
        ),
        "limits": (
            "One line is one trained model: the interval covers the choice of problems, not the training seed, and "
            "models trained without a trace are known to vary widely between seeds. A gap between the regimes does "
            "not say whether serial depth, more supervision a problem, or more compute made it. On a commutative "
            "task a held-out problem can have a reordered twin among the training problems."
        ),
    },
    "budget": {
        "title": "The serial budget",
        "question": "How many steps are there to do one after another, and how many passes are there to do them in?",
        "reading": (
            "The folklore picture: to fold K operands from left to right takes K − 1 additions, each waiting for "
            "the one before. A model that answers at once has L layers, one after another, and so at most L serial "
            "slots. A model that writes R tokens passes through its L layers R times, each pass reading what the "
            "earlier ones wrote: R × L layer operations (those that come before the answer's first symbol are in a "
            "column of their own). The picture has rivals. An associative fold needs only about log2 K levels as a "
            "tree; a commutative sum can be one average over the operands, whatever K is; and a written trace may "
            "be decoration while the model recomputes from the prompt. The measured accuracies stand beside the "
            "counts."
        ),
        "limits": (
            "These are counts, not measurements: having slots is not using them, and a direct model also computes "
            "at every prompt position. Where direct accuracy falls as K grows, that alone cannot tell the serial "
            "budget from a problem space that grows tenfold with each operand while the training set does not."
        ),
    },
    "frontier": {
        "title": "Serial compute: needed and available",
        "question": "How deep must a model be to answer at once, and what do written tokens offer instead?",
        "reading": (
            "Move the sliders. The law is a hypothesis on how many layers, one after another, K operands need: K − 1 "
            "of them (linear, b steps a layer), the levels of a tree (logarithmic), a number that does not depend on "
            "K (constant), or none that helps. A model that answers at once (direct) has L layers; one that writes "
            "first (cot) goes through its L layers again for each token, so it has L more for every token before its "
            "answer. Left: what each law needs at each K, against what both have. Right: the longest problem that a "
            "depth solves by each law. Points are trained models: the largest K up to which a run gets at least 90% "
            "of the held-out problems right at every measured length. An open point had not converged, so it is a "
            "lower bound; an arrow points to where the truth may lie."
        ),
        "limits": (
            "Lines are capacities, not mechanisms: that a model has the layers does not show that it uses them so, "
            "and a point on a line does not show that the model computes what the law describes. Tokens are those of "
            "a right answer. Points are the models of one sweep, one width and these training budgets; a law that "
            "seems to fit a few depths may fail at the next. Operations are counted, not timed."
        ),
    },
    "compute": {
        "title": "Accuracy against compute",
        "question": "What does accuracy cost in parameters, in tokens, in operations of an answer and of training?",
        "reading": (
            "A large marker is one configuration, the mean over its seeds (small markers), with its number of "
            "layers; a color is a regime, a stroke a number of updates. Accuracy is the mean over all measured "
            "lengths K. Operations are the matrix products of a right answer, each token read once (a cache of keys "
            "and values), and three passes over every transcript of training. The table gives, for each length, the "
            "least of each price at which some configuration of a regime got 90% of the held-out problems right; the "
            "least of two prices may belong to two configurations."
        ),
        "limits": (
            "Prices compare the configurations that were trained, not the best ones possible: a regime that did not "
            "get there may do so with more updates, another width or another learning rate. Operations are counted "
            "from shapes, not timed; decoding token by token takes longer for the same count. Choosing the cheapest "
            "of several configurations by the accuracy that is then reported favors those that were lucky."
        ),
    },
    "errors": {
        "title": "Errors",
        "question": "When an output is faulty, what is the fault?",
        "reading": (
            "Every output falls into exactly one category; bars count those that are not correct in every part (so "
            "also a right answer after a faulty trace). The number above a bar says how many, of how many. Each "
            "panel has its own vertical scale, for one regime may fail far more often: compare the numbers, not "
            "the heights. Hover for shares."
        ),
        "limits": (
            "A category describes the text, not its cause: an arithmetic slip in a written step may come from a "
            "wrong read, a wrong sum or a wrong write. A direct answer has no steps, so most categories cannot "
            "apply to it. With few faulty outputs the shares among them are uncertain."
        ),
    },
    "trace_edits": {
        "title": "Trace edits",
        "question": "Replace one written total by a wrong one and let the model write on: whose total does it use?",
        "reading": (
            "Only the final answer is judged. Follows: it is what the task computes from the edited total. "
            "Ignores: it is the original answer all the same. Other: neither. Replacements are totals of the same "
            "length that occur at that step. Bars carry 95% intervals over problems. Dotted lines are chance: each "
            "answer judged by the two answers of another problem that was edited at the same step. In the control "
            "the true total is written again, so following should come out as the model's accuracy. Only regimes "
            "that write totals can be edited."
        ),
        "limits": (
            "Following shows that the answer depends on what was written at that step; it does not show by which "
            "heads, nor that nothing else is used. A model trained only on perfect traces has never seen a wrong "
            "total, so ignoring or breaking down can come from being off its distribution. Steps are not alike: late "
            "ones exist in longer problems only and are nearer to the answer, so rates pooled over steps depend on "
            "how many of each there are. After Lanham et al. "
            "(2023, arXiv 2307.13702)."
        ),
    },
    "trace_edit_kinds": {
        "title": "Every kind of trace edit",
        "question": "Shown another trace than its own, does the model answer from what is written, or from the prompt?",
        "reading": (
            "Nine ways of showing a trace that does not belong under its prompt, each with all its steps in one bar. "
            "Follows: the answer is what the trace that is shown leads to. Ignores: it is the right answer to the "
            "prompt that is shown. Other: neither; where the trace is closed, the part is set apart in which the "
            "model goes on with the trace after its closing brace and answers nothing. Three groups, by what is left "
            "to be written. Cut: the model writes the rest of the trace from the edited total on. Closed: nothing but "
            "the answer is left, so following asks no more than whether it copies the last total that is shown (of a "
            "trace closed before its first step, the first operand). Nothing to follow: filler symbols stand where "
            "totals or whole steps were. The thin pale bar below each is chance: the same answers judged by those of "
            "another problem edited alike. In the controls the true trace stands, so following should come out as the "
            "model's accuracy. Hover for intervals over problems."
        ),
        "limits": (
            "All of these are texts that a model trained on perfect traces never saw. Filler symbols are the extreme: "
            "they stand in no training transcript, so a wrong answer after them does not show that the model needed "
            "the totals. Early closing, another order and a step taken out move tokens to other places; a model that "
            "finds its way by position then breaks down or goes on with the trace, which says nothing of what it "
            "reads. A model that copies the last total follows every closed edit, whether or not it used the totals "
            "before it. Chance is that of the answers at hand: where none can be judged it is 0. After Lanham et al. "
            "(2023, arXiv 2307.13702)."
        ),
    },
    "probes": {
        "title": "Linear probes for the running totals",
        "question": (
            "At which layer and place can each running total be read off linearly, and is that more than chance "
            "and wording?"
        ),
        "reading": (
            "Columns are places of the transcript in reading order, rows are sites (deepest on top), one panel a "
            "running total, the trained model beside an untrained one. Bold symbols are those of the example under "
            "Attention. The row input is a baseline that sees only the current token and its position. Selectivity "
            "(first figure of each pair) is accuracy minus that of the same probe on a random label for each "
            "distinct input: white is none, blue is above, red is below. Accuracy is on problems that the probe "
            "was not fitted on. Numbers of at least .1 are printed. Right of a dashed line the panel's total may "
            "have been written already. Gray: not probed, as where the total is the token itself."
        ),
        "limits": (
            "A written total is the token at its own place: decoding it there, or later, is trivial, so look to "
            "the left of the dashed line. What the untrained model shows as well was in the tokens, not learned. "
            "Decodable is not used: a probe cannot say that the model reads what the probe reads (Hewitt and Liang "
            "2019, arXiv 1909.03368; Belinkov 2022, arXiv 2102.12452)."
        ),
    },
    "pair_families": {
        "title": "Trace or prompt?",
        "question": "Where does a written total come from: the total before it as written, or the prompt again?",
        "reading": (
            "One question under four changes of the same problems, with nothing patched. Prompt operand: an operand of "
            "the prompt is another, the trace stays as it was; a model that computes from the prompt follows, one that "
            "reads the trace does not. Written total: the total before is another, the prompt stays; the other way "
            "round. Both: the operand and all that follows from it; whoever is right follows. Unrelated: a later "
            "operand, which the total cannot depend on; nobody follows. A source is named where a change is followed, "
            "or not followed, in more than four of five problems, interval and all, and the last two come out as they "
            "must; else it is said what would decide."
        ),
        "limits": (
            "Two of the four show a model a trace that does not belong to its prompt, which it never saw in training. "
            "The answer is about this total of problems of one length, and says what the total depends on, not where "
            "in the model."
        ),
    },
    "patching": {
        "title": "Activation patching",
        "question": "Which activations, at which place, carry what the answer depends on?",
        "reading": (
            "Two transcripts of the same length differ in one thing (one operand, or one written total). Denoise: "
            "put one activation of the clean run into the corrupted run; 1 means that this alone restores the "
            "clean answer, 0 that it does nothing. Noise: put the corrupted one into the clean run; 1 means that "
            "this alone breaks it. The metric is the normalized logit difference between the two symbols at the "
            "readout. Effects of at least .05 are printed; colors end at −1 and 1, the numbers do not. Hover for "
            "intervals. Columns are in reading order, up to the place that predicts the readout's first symbol; "
            "bold symbols are those of the example under Attention. The residual stream holds whatever was written "
            "into it before: look at attn_out, mlp_out and the heads (z) for what brought it there. A caption "
            "says in how many pairs the top prediction tells the two runs apart; where that is few, the figure "
            "shows what moves a guess."
        ),
        "limits": (
            "All pairs are read where the readout's first symbol is predicted: for sums of two digits the tens, which "
            "says nothing of how the units are made. Denoising shows what is enough and noising what is needed, and on "
            "serial chains and redundant circuits the two differ. A cell says that information there matters for this "
            "contrast, not that it is computed there. Intervals are for one cell each; corrected for the number of "
            "cells they stand in patching_scan.csv, with a p-value for each cell (Zhang and Nanda 2023, arXiv "
            "2309.16042; Heimersheim and Nanda 2024, arXiv 2404.15255)."
        ),
    },
    "heads": {
        "title": "Attention heads",
        "question": "Which heads push toward the answer, which are missed when taken out, and where do they look?",
        "reading": (
            "Direct attribution is a head's own share of the logit difference, written straight to the output. The "
            "ablation effect is the share of the clean logit difference that is lost when the head's output is "
            "replaced by that from another example: 1 is all of it, below 0 it grows. Attention columns are the "
            "mean mass onto the previous written total (a dash where none is written) and onto the operand that "
            "comes next; the rules of the labels compare that mass with chance. Bars are scaled within a column: blue "
            "above zero, orange below. Click a heading, or press Enter on it, to sort."
        ),
        "limits": (
            "Attribution leaves out what a head does through later layers; ablation includes it, and later layers "
            "may repair it. Attention mass says where a head looks, not what it moves. A label is the name of a "
            "rule that the numbers meet (above), not a verdict on what the head is for."
        ),
    },
    "faithfulness": {
        "title": "Circuits",
        "question": "Which connections between components carry the change, and how few of them keep the answer?",
        "reading": (
            "An edge is what one component writes, as far as it enters one input of another: L0H1->L2H0.k is what head "
            "1 of layer 0 puts into the keys of head 0 of layer 2. Each edge of the model is patched by itself (the "
            "corrupted value into the clean run), and edges are ranked by the size of their effect. The curve keeps "
            "the first so many edges and corrupts all others: 1 is the clean run, 0 the corrupted one, and more than 1 "
            "means that what was left out works against the answer."
        ),
        "limits": (
            "A circuit that keeps the answer need not be how the model finds it: others of the same size may keep it "
            "as well, and of two edges that stand in for one another neither shows. The curve is drawn on the pairs "
            "that the edges were ranked on. Edges have no places. For tests of a circuit and a count of its rivals see "
            "analyses/circuit_validity.py (Shi et al. 2024, arXiv 2410.13032)."
        ),
    },
    "attention": {
        "title": "Attention patterns of one example",
        "question": "What does each head attend to, on one transcript?",
        "reading": (
            "Rows are destinations (who looks), columns sources (what is looked at), darker is more; gray cannot "
            "be seen, being later. Hover over a small pattern to enlarge it, click to keep it, or choose the head "
            "from the list, which needs no mouse. The number after a token is its position."
        ),
        "limits": (
            "One example, chosen before looking. It shows what a pattern is like, not how often it is so, and "
            "attention by itself is no evidence of what a head does: see patching and ablation."
        ),
    },
}
