"""An explanation as text for the screen."""

from typing import Any

SHOWN = 10  # lines of a table


def as_text(explanation: dict[str, Any]) -> str:
    """A page of text; explain.json holds everything."""
    lines = [f"sample {explanation['sample']}, network {explanation['network']}"]
    if explanation["absent"]:
        lines.append(f"not known: {', '.join(explanation['absent'])}")
    for task, part in explanation["tasks"].items():
        lines += ["", *_task(task, part)]
    return "\n".join(lines)


def _task(task: str, part: dict[str, Any]) -> list[str]:
    probability, log_odds = part["probability"], part["log_odds"]
    lines = [
        f"{task}: {part['question']}",
        f"{part['answer']}: probability {probability:.3f}, log-odds {log_odds:.3f}",
        "",
        "what each modality adds to the log-odds (Shapley values)",
        *_table(
            ("nothing known", _signed(part["nothing_known"])),
            *((name, _signed(value)) for name, value in part["modalities"].items()),
            ("all that is known", _signed(log_odds)),
        ),
    ]
    if "combinations" in part:
        lines += ["", "weights of the combinations, and their experts", *_combinations(part)]
    if "details" in part:
        lines += ["", "what adds within a modality (integrated gradients; in brackets: carried on)"]
        for name, own in part["details"].items():
            lines += _details(name, own["details"])
    if "check" in part:
        lines += ["", _check(part["check"], log_odds)]
    if "deletion" in part:
        area = part["deletion"]["area"]
        lines.append(f"deletion: area {area:.3f} between random order and order of contribution")
    return lines


def _combinations(part: dict[str, Any]) -> list[str]:
    ranked = sorted(part["combinations"].items(), key=lambda item: -item[1]["weight"])[:SHOWN]
    rows = [(name, _percent(own["weight"]), _shares(own["experts"])) for name, own in ranked]
    return _table(*rows, ("in all", "", _shares(part["experts"])))


def _shares(experts: dict[str, float]) -> str:
    ranked = sorted(experts.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {_percent(share)}" for name, share in ranked)


def _details(name: str, details: list[dict[str, Any]]) -> list[str]:
    """The largest contributions of a modality, and their sums where several have one name."""
    sums: dict[str, float] = {}
    for one in details:
        sums[one["what"]] = sums.get(one["what"], 0) + one["contribution"]
    lines = [f"{name} {_signed(sum(sums.values()))}"]
    if 1 < len(sums) < len(details):
        ranked = sorted(sums.items(), key=lambda item: -abs(item[1]))[:SHOWN]
        lines += _table(*((_signed(value), what, "in all") for what, value in ranked))
    largest = sorted(details, key=lambda one: -abs(one["contribution"]))[:SHOWN]
    rows = [(_signed(d["contribution"]), d["what"], d["where"], d["value"]) for d in largest]
    return lines + _table(*rows)


def _check(check: dict[str, Any], log_odds: float) -> str:
    verdict = "within" if check["complete"] else "MORE than"
    return (
        f"details: baseline {_signed(check['baseline'])}, jumps {_signed(check['jumps'])}, "
        f"sum {_signed(check['sum'])} = {_signed(log_odds)} to {abs(check['gap']):.4f}, "
        f"{verdict} the tolerance of {check['tolerance']:.4f}"
    )


def _signed(value: float) -> str:
    return f"{value:+.3f}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _table(*rows: tuple[str, ...]) -> list[str]:
    """Rows with their columns one under the other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = [map(str.ljust, row, widths) for row in rows]
    return [f"  {'  '.join(cells)}".rstrip() for cells in padded]
