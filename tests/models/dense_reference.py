"""The network of SPEC 6 written down again as plainly as can be, one patient and one task a time.

It shares no code with the package and takes only a state dict: one sequence of what is there, one
table filled by loops, softmax attention head by head, all experts computed. float64.
"""

import math
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor


@dataclass
class Answer:
    combined: dict[str, Tensor]  # z_S by name, present combinations only
    gates: dict[str, Tensor]
    weights: dict[str, Tensor]
    logits: Tensor


class Reference:
    """`answer(inputs of one patient, task)` with the weights of a state dict."""

    def __init__(self, state, config, infos, tasks):
        self.w = {name: tensor.double() for name, tensor in state.items()}
        self.config, self.infos, self.tasks = config, infos, tasks
        ordered = [info.name for info in infos if info.kind == "time_series"]
        self.causal = ordered if config.causal_series else []

    def linear(self, x, name):
        out = x @ self.w[f"{name}.weight"].T
        return out + self.w[f"{name}.bias"] if f"{name}.bias" in self.w else out

    def norm(self, x, name):
        centred = x - x.mean()
        scaled = centred / torch.sqrt((centred**2).mean() + 1e-5)
        return scaled * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def embed(self, info, values):
        """List of token vectors of one patient's modality; `values` holds valid tokens only."""
        if info.kind == "time_series":
            values = list(values)[-self.config.max_bins :]
        elif info.kind == "text":
            values = list(values)[: self.config.max_pieces]
        else:
            p, count = self.config.patch, info.width // self.config.patch
            values = [
                values[i * p : (i + 1) * p, j * p : (j + 1) * p].reshape(-1)
                for i in range(count)
                for j in range(count)
            ]
        positions = self.w[f"encoders.{info.name}.positions"]
        return [
            self.linear(value, f"encoders.{info.name}.project") + positions[place]
            for place, value in enumerate(values)
        ]

    def answer(self, inputs, task):
        """`inputs`: by modality, the valid values of one patient (float64)."""
        names = sorted(info.name for info in self.infos)
        cap = self.config.max_combination or len(names)
        sets = [s for size in range(1, cap + 1) for s in combinations(names, size)]
        sequence = [("task", self.w["task_embedding.weight"][self.tasks.index(task)])]
        for s in sets:
            visible = self.config.absent_combinations == "visible" and len(s) > 1
            if visible or all(m in inputs for m in s):
                sequence.append((s, self.w["fusion.combination_tokens." + "+".join(s)]))
        for info in self.infos:
            if info.name in inputs:
                sequence += [(info.name, x) for x in self.embed(info, inputs[info.name])]
        kinds = [kind for kind, _ in sequence]
        x = [vector for _, vector in sequence]
        for index in range(self.config.layers):
            x = self.layer(x, kinds, f"fusion.layers.{index}")
        z = {k: v for k, v in zip(kinds, x, strict=True) if isinstance(k, tuple)}
        z = {"+".join(s): v for s, v in z.items() if all(m in inputs for m in s)}
        return self.head(z, x[0], task)

    def sees(self, query, key):
        if query == "task":
            everything = {
                "all": True,
                "combinations": isinstance(key, tuple),
                "itself": False,
            }[self.config.task_token_sees]
            return key == "task" or everything
        if isinstance(query, tuple):
            return key == query or key in query
        return key == query

    def layer(self, x, kinds, name):
        n, d, heads = len(x), len(x[0]), self.config.heads
        table = torch.zeros(n, n, dtype=torch.float64)
        for i, query in enumerate(kinds):
            for j, key in enumerate(kinds):
                later = query == key and query in self.causal and j > i
                if later or not self.sees(query, key):
                    table[i, j] = {"boolean": -math.inf, "additive": 1.0, "none": 0.0}[
                        self.config.mask
                    ]
        together = torch.stack(x)
        qkv = self.linear(together, f"{name}.query_key_value")
        parts = []
        for h in range(heads):
            a, b = h * d // heads, (h + 1) * d // heads
            q, k, v = qkv[:, a:b], qkv[:, d + a : d + b], qkv[:, 2 * d + a : 2 * d + b]
            scores = q @ k.T / math.sqrt(d / heads) + table
            parts.append(torch.softmax(scores, 1) @ v)
        attended = self.linear(torch.cat(parts, 1), f"{name}.out")
        out = []
        for before, change in zip(x, attended, strict=True):
            middle = self.norm(before + change, f"{name}.norm1")
            inner = torch.relu(self.linear(middle, f"{name}.up"))
            out.append(self.norm(middle + self.linear(inner, f"{name}.down"), f"{name}.norm2"))
        return out

    def head(self, z, task_token, task):
        s, gates, scores = {}, {}, {}
        for name, vector in z.items():
            gates[name] = self.gate(vector, task_token)
            s[name] = sum(
                gates[name][e] * self.expert(vector, e) for e in range(self.config.experts)
            )
            asked = torch.tanh(self.linear(torch.cat([task_token, s[name]]), "pooling.inner"))
            score = self.linear(asked, "pooling.outer") / self.config.attention_temperature
            scores[name] = math.exp(float(score))
        share = sum(scores.values())
        weights = {name: task_token.new_tensor(v / share) for name, v in scores.items()}
        half = torch.zeros_like(task_token)
        if z:
            half = self.norm(sum(weights[name] * s[name] for name in z), "heads.norm")
        logits = self.linear(torch.cat([task_token, half]), f"heads.linear.{task}")
        return Answer(z, gates, weights, logits)

    def gate(self, vector, task_token):
        logits = self.linear(vector, "experts.gate") + self.linear(task_token, "experts.gate_task")
        order = sorted(range(len(logits)), key=lambda e: -float(logits[e]))
        kept = order[: self.config.experts_per_token]
        total = sum(math.exp(float(logits[e])) for e in kept)
        out = torch.zeros_like(logits)
        for e in kept:
            out[e] = math.exp(float(logits[e])) / total
        return out

    def expert(self, vector, e):
        inner = torch.relu(vector @ self.w["experts.weight1"][e] + self.w["experts.bias1"][e])
        return inner @ self.w["experts.weight2"][e] + self.w["experts.bias2"][e]


def patients(batch) -> list[dict[str, Tensor]]:
    """The valid values of each row of a batch, by modality, in float64."""
    out: list[dict[str, Tensor]] = [{} for _ in range(batch.size)]
    for name, tokens in batch.inputs.items():
        for row, of, known in zip(tokens.rows, tokens.of, tokens.known(), strict=True):
            if known.any():
                values = tokens.values[of]
                kept = values[known] if known.shape[0] > 1 else values
                out[int(row)][name] = kept.detach().double()
    return out
