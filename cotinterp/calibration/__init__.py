"""Do the instruments answer right? Asked on models whose mechanism is known, with nothing there, and with bugs planted.

- `ground_truth`: the models, each with what is known of it.
- `questions`, and by instrument: one question, the declared truth for each model, how the answer is read off.
- `calibrate`: every question on every model that it applies to; a table of right and wrong.
- `false_positives`: how often a scan finds something in untrained models.
- `claim_truths`: every claim where its verdict is known: on handmade models, and in made-up worlds.
- `null_claims`, `verdict_level`: how often a verdict finds something in nothing.
- `law_worlds`: which law of depth is named in made-up sweeps whose law is known.
- `mutations`: bugs planted in the library, and the control that must notice each.
"""
