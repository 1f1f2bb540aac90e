"""Do the instruments answer right? Asked on models whose mechanism is known, with nothing there, and with bugs planted.

- `ground_truth`: the models, each with what is known of it, and worlds of them at several seeds.
- `behavior_questions`, `patching_questions`, `probe_questions`: one question, the declared truth for each model, how
  the answer is read off.
- `calibrate`: every question on every model that it applies to; a table of right and wrong.
- `claim_truths`, `claim_worlds`: every claim where its verdict is known: on handmade models, and in made-up worlds.
- `untrained`: how often a scan, or a verdict, finds something in models that know nothing.
- `verdict_level`: evidence with known rates, and how often a claim that is just not so is supported by it.
- `law_worlds`: which law of depth is named in made-up sweeps whose law is known.
- `mutations`: bugs planted in the library, and the control that must notice each.
- `peers`: agreement with TransformerLens, on several architectures.
- `session`: what the command does.
"""
