"""An invented hospital in MIMIC-IV's layout, with planted truth (SPEC 8)."""

from flexcare.sources.synthetic.write import simulate

__all__ = ["simulate"]
