"""The planted truth: which factor each answer follows, as tables to read (SPEC 8).

Every subject has four balanced, independent yes-or-no factors and a severity (standard normal).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

FACTORS = ("s", "f", "t", "c")
SEEN_IN: dict[str, tuple[str, ...]] = {
    "s": ("series",),  # in glucose and temperature
    "f": ("film",),  # which way the streaks in a lung run
    "t": ("note",),  # which words a discharge summary uses
    "c": ("series", "film", "note"),  # blood pressure, streaks in the midline, words
    "u": ("series",),  # severity, in heart rate, breathing, oxygen and coma scale
}


@dataclass(frozen=True)
class Rule:
    """How a yes-or-no answer follows from factors: one of them, or two by exclusive or.

    Attributes:
        factors: none (a coin of `prevalence`), one, or two (exclusive or).
        reverse: the answer is yes where the factors say no.
        noise: probability that the answer is turned round.
        prevalence: of a coin; an answer from balanced factors has 0.5.
    """

    factors: tuple[str, ...] = ()
    reverse: bool = False
    noise: float = 0.0
    prevalence: float = 0.5

    def answer(self, factors: Mapping[str, int], rng: np.random.Generator) -> bool:
        """One noisy answer; always takes one number from `rng`."""
        draw = float(rng.random())
        if not self.factors:
            return draw < self.prevalence
        told = (sum(factors[name] for name in self.factors) + self.reverse) % 2 == 1
        return told != (draw < self.noise)

    @property
    def best_auroc(self) -> float:
        """AUROC of a reader who knows the factors: 1 - noise, since the factors are balanced."""
        return 1 - self.noise if self.factors else 0.5


def coin(prevalence: float) -> Rule:
    return Rule(prevalence=prevalence)


RETURN = Rule(("f", "t"), noise=0.04)  # back in the ICU within 30 days

PHENOTYPES: dict[str, Rule] = {
    "Acute and unspecified renal failure": Rule(("s", "f"), noise=0.03),
    "Acute cerebrovascular disease": coin(0.12),
    "Acute myocardial infarction": Rule(("s", "f"), reverse=True, noise=0.04),
    "Cardiac dysrhythmias": coin(0.3),
    "Chronic kidney disease": Rule(("t",), noise=0.03),
    "Chronic obstructive pulmonary disease and bronchiectasis": Rule(("t",), True, 0.04),
    "Complications of surgical procedures or medical care": Rule(("s",), True, 0.05),
    "Conduction disorders": coin(0.08),
    "Congestive heart failure; nonhypertensive": Rule(("c",), noise=0.04),
    "Coronary atherosclerosis and other heart disease": Rule(("t",), noise=0.05),
    "Diabetes mellitus with complications": Rule(("s",), noise=0.03),
    "Diabetes mellitus without complication": Rule(("s",), True, 0.04),
    "Disorders of lipid metabolism": Rule(("t",), noise=0.04),
    "Essential hypertension": Rule(("t",), True, 0.03),
    "Fluid and electrolyte disorders": Rule(("s",), noise=0.05),
    "Gastrointestinal hemorrhage": Rule(("s", "t"), noise=0.04),
    "Hypertension with complications and secondary hypertension": Rule(("c",), True, 0.03),
    "Other liver diseases": Rule(("s",), True, 0.03),
    "Other lower respiratory disease": Rule(("f",), True, 0.04),
    "Other upper respiratory disease": coin(0.06),
    "Pleurisy; pneumothorax; pulmonary collapse": Rule(("f",), noise=0.03),
    "Pneumonia (except that caused by tuberculosis or sexually transmitted disease)": Rule(
        ("f",), noise=0.04
    ),
    "Respiratory failure; insufficiency; arrest (adult)": Rule(("f",), noise=0.05),
    "Septicemia (except in labor)": Rule(("s",), noise=0.04),
    "Shock": Rule(("c",), noise=0.05),
}

FINDINGS: dict[str, Rule] = {
    "Atelectasis": Rule(("f",), True, 0.03),
    "Cardiomegaly": Rule(("c",), False, 0.03),
    "Consolidation": Rule(("f",), False, 0.03),
    "Edema": Rule(("c",), True, 0.03),
    "Enlarged Cardiomediastinum": coin(0.1),
    "Fracture": coin(0.05),
    "Lung Lesion": coin(0.06),
    "Lung Opacity": Rule(("f",), False, 0.03),
    "No Finding": coin(0.3),
    "Pleural Effusion": Rule(("f",), True, 0.03),
    "Pleural Other": coin(0.05),
    "Pneumonia": Rule(("f",), False, 0.03),
    "Pneumothorax": coin(0.08),
    "Support Devices": coin(0.3),
}
UNCERTAIN, BLANK = 0.08, 0.07  # share of findings written -1 or left out

# DRG of an admission by (t, c, the coin its brief hospital course tells).
DRG: dict[tuple[int, int, int], tuple[str, str]] = {
    (0, 0, 0): ("193", "SIMPLE PNEUMONIA & PLEURISY W MCC"),
    (0, 0, 1): ("163", "MAJOR CHEST PROCEDURES W MCC"),
    (0, 1, 0): ("291", "HEART FAILURE & SHOCK W MCC"),
    (0, 1, 1): ("237", "MAJOR CARDIOVASC PROCEDURES W MCC"),
    (1, 0, 0): ("064", "INTRACRANIAL HEMORRHAGE OR CEREBRAL INFARCTION W MCC"),
    (1, 0, 1): ("025", "CRANIOTOMY & ENDOVASCULAR INTRACRANIAL PROCEDURES W MCC"),
    (1, 1, 0): ("871", "SEPTICEMIA OR SEVERE SEPSIS W/O MV >96 HOURS W MCC"),
    (1, 1, 1): ("853", "INFECTIOUS & PARASITIC DISEASES W O.R. PROCEDURE W MCC"),
}
DRG_RARE = (("864", "FEVER"), ("918", "POISONING & TOXIC EFFECTS OF DRUGS W/O MCC"))
DRG_NOISE, DRG_RARE_SHARE = 0.03, 0.005  # any regular code; one of the rare codes

# Death in hospital: logistic in severity and c (coded -0.5, +0.5); a share of it on the ward.
DEATH_INTERCEPT, DEATH_U, DEATH_C, WARD_SHARE = -3.0, 1.8, 1.2, 0.3
LATE_DEATH = 0.02  # of the survivors who do not return: death 2 to 28 days after discharge
# Hours in the ICU: exp(normal), longer with severity.
LOS_MEDIAN, LOS_U, LOS_SD, LOS_RANGE = 60.0, 0.45, 0.66, (8.0, 480.0)
# At least one frontal film in the stay: logistic in severity (missing not at random).
FILM_INTERCEPT, FILM_U = 1.05, 0.8


def death_probability(severity: float, c: float) -> float:
    """Probability of death in hospital, of severity and factor c (0 or 1)."""
    return _logistic(DEATH_INTERCEPT + DEATH_U * severity + DEATH_C * (c - 0.5))


def film_probability(severity: float) -> float:
    """Probability of at least one frontal film in the ICU stay."""
    return _logistic(FILM_INTERCEPT + FILM_U * severity)


def _logistic(value: float) -> float:
    return float(1 / (1 + np.exp(-value)))


@dataclass(frozen=True)
class Vital:
    """One quantity of the series: normal value, and what moves it.

    A value is `usual` + effects + a patient's own level (`between`) + scatter (`within`). A
    yes-or-no factor adds half its effect where it is 1 and takes half where it is 0. `dying` is
    added in full at an ICU death, growing from 24 h before.
    """

    usual: float
    between: float
    within: float
    s: float = 0.0
    c: float = 0.0
    u: float = 0.0
    dying: float = 0.0


# With these widths one value tells s or c to 75-80 %, a stay of two days to about 97 %.
VITALS: dict[str, Vital] = {
    "heart_rate": Vital(86, 6, 7, u=8, dying=28),
    "mean_pressure": Vital(78, 4.5, 8, c=-17, dying=-20),
    "pulse_pressure": Vital(46, 5, 6, dying=-10),
    "respiratory_rate": Vital(19, 1.6, 2.5, u=2.2, dying=8),
    "saturation": Vital(96.5, 0.7, 1.2, u=-1.1, dying=-9),
    "celsius": Vital(36.95, 0.24, 0.42, s=0.7),
    "glucose": Vital(145, 15, 28, s=45),
    "eye": Vital(3.7, 0.2, 0.5, u=-0.5, dying=-2.5),
    "motor": Vital(5.9, 0.2, 0.5, u=-0.4, dying=-4),
    "verbal": Vital(4.7, 0.3, 0.6, u=-0.8, dying=-3.5),
    "ph": Vital(7.38, 0.02, 0.03, u=-0.015, dying=-0.12),
    "oxygen_percent": Vital(42, 6, 6, u=5, dying=25),
}

# Real codes of every category, by ICD version; the rest of the record lies outside all of them.
CODES: dict[str, dict[int, tuple[str, ...]]] = {
    "Acute and unspecified renal failure": {9: ("5849", "5845"), 10: ("N179", "N170")},
    "Acute cerebrovascular disease": {9: ("43491", "431"), 10: ("I639", "I6350")},
    "Acute myocardial infarction": {9: ("41071", "41041"), 10: ("I214", "I2109")},
    "Cardiac dysrhythmias": {9: ("42731", "42789"), 10: ("I4891", "I480", "I4820")},
    "Chronic kidney disease": {9: ("5859", "5853"), 10: ("N183", "N186", "N1831")},
    "Chronic obstructive pulmonary disease and bronchiectasis": {
        9: ("496", "49121"),
        10: ("J449", "J441"),
    },
    "Complications of surgical procedures or medical care": {
        9: ("99859", "9971"),
        10: ("T8189XA", "J95821"),
    },
    "Conduction disorders": {9: ("4260", "4263"), 10: ("I440", "I447")},
    "Congestive heart failure; nonhypertensive": {9: ("4280", "42823"), 10: ("I509", "I5022")},
    "Coronary atherosclerosis and other heart disease": {
        9: ("41401", "41400"),
        10: ("I2510", "I25119"),
    },
    "Diabetes mellitus with complications": {9: ("25040", "25060"), 10: ("E1122", "E1165")},
    "Diabetes mellitus without complication": {9: ("25000",), 10: ("E119", "E109")},
    "Disorders of lipid metabolism": {9: ("2724", "2720"), 10: ("E785", "E7800")},
    "Essential hypertension": {9: ("4019",), 10: ("I10",)},
    "Fluid and electrolyte disorders": {9: ("2761", "2768"), 10: ("E871", "E876")},
    "Gastrointestinal hemorrhage": {9: ("5789", "53140"), 10: ("K922",)},
    "Hypertension with complications and secondary hypertension": {
        9: ("40390", "40391"),
        10: ("I129", "I120"),
    },
    "Other liver diseases": {9: ("5715", "5728"), 10: ("K7460", "K766")},
    "Other lower respiratory disease": {9: ("78605", "7862"), 10: ("R0602", "J984")},
    "Other upper respiratory disease": {9: ("47819", "7847"), 10: ("J387", "J343")},
    "Pleurisy; pneumothorax; pulmonary collapse": {9: ("5119", "5180"), 10: ("J90", "J9811")},
    "Pneumonia (except that caused by tuberculosis or sexually transmitted disease)": {
        9: ("486", "4829"),
        10: ("J189", "J13"),
    },
    "Respiratory failure; insufficiency; arrest (adult)": {
        9: ("51881", "51884"),
        10: ("J9601", "J9600"),
    },
    "Septicemia (except in labor)": {9: ("0389", "03811"), 10: ("A419", "A4101")},
    "Shock": {9: ("78552", "78551"), 10: ("R6521", "R570")},
}
OTHER_CODES: dict[int, tuple[str, ...]] = {
    9: ("V1582", "311", "2749", "2859", "2449", "53081", "34590"),
    10: ("Z87891", "F329", "M109", "D649", "E039", "K219", "G4733"),
}
