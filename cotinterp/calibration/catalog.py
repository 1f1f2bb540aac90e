"""All questions, by instrument: declared once, before anything is measured."""

from cotinterp.calibration.head_questions import HEAD_QUESTIONS
from cotinterp.calibration.memory_questions import MEMORY_QUESTIONS
from cotinterp.calibration.patching_questions import PATCHING_QUESTIONS
from cotinterp.calibration.probe_questions import PROBE_QUESTIONS
from cotinterp.calibration.trace_questions import TRACE_QUESTIONS

QUESTIONS = (*MEMORY_QUESTIONS, *TRACE_QUESTIONS, *PATCHING_QUESTIONS, *HEAD_QUESTIONS, *PROBE_QUESTIONS)
