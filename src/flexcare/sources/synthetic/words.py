"""The vocabulary of the notes: words that tell a factor, and words that tell nothing."""

# By factor and its value. Past history and hospital course of discharge summaries.
HISTORY: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "t": (
        (
            "hiatal hernia",
            "appendectomy",
            "kidney stones",
            "hemorrhoids",
            "eczema",
            "insomnia",
            "plantar fasciitis",
            "bunion repair",
            "lactose intolerance",
            "varicose veins",
            "tennis elbow",
            "vitamin D deficiency",
        ),
        (
            "gout",
            "psoriasis",
            "migraine",
            "sciatica",
            "glaucoma",
            "hypothyroidism",
            "osteoporosis",
            "tinnitus",
            "rosacea",
            "restless legs",
            "trigeminal neuralgia",
            "celiac sprue",
        ),
    ),
    "c": (
        ("pounding headaches", "salt restriction", "flushed cheeks", "bounding pulses"),
        ("dizziness on standing", "compression stockings", "cold fingers", "thready pulses"),
    ),
}
# Of radiology reports, which must not tell what the film shows of factor f.
OUTLINE: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "c": (
        ("slender aortic contour", "narrow vascular pedicle", "small azygos shadow"),
        ("tortuous aorta", "widened vascular pedicle", "prominent azygos shadow"),
    )
}
# The coin of the DRG: told in the brief hospital course alone.
COURSE: tuple[tuple[str, ...], tuple[str, ...]] = (
    ("managed conservatively", "physiotherapy twice daily", "dietary counselling", "oral regimen"),
    ("taken to the operating room", "wound vacuum dressing", "surgical drain", "staples removed"),
)
# Chief complaint at triage: (factor says no, factor says yes); weak hints only.
COMPLAINT: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "u": (
        ("Abd pain", "s/p Fall", "Back pain", "Abnormal labs"),
        ("Dyspnea", "Altered mental status", "Respiratory distress", "Unresponsive"),
    ),
    "c": (("Headache", "Nosebleed"), ("Lightheaded", "Syncope")),
}
# Chief complaints of discharge summaries; they hint at nothing.
REASONS = ("Weakness", "Malaise", "Transfer for further care", "Chest discomfort", "Fatigue")
NEUTRAL_HISTORY = (
    "tonsillectomy in childhood",
    "seasonal allergies",
    "corrective lenses",
    "dental implants",
    "routine immunizations",
    "former smoker",
    "left wrist fracture",
    "colonoscopy without polyps",
    "contact dermatitis",
    "hearing aid",
)
HISTORY_FORMS = (
    "{}",
    "history of {}",
    "{}, stable",
    "remote {}",
    "{} per outside records",
    "mild {}",
)
COURSE_FORMS = (
    "Longstanding {} needed no change of treatment.",
    "{} was noted and followed by the primary team.",
    "The team reviewed {} with the family.",
    "Regarding {}, the plan was continued.",
)
COIN_FORMS = ("The record says {} on this admission.", "Main event: {}.", "Summary of care: {}.")
NEUTRAL_COURSE = (
    "The patient was admitted and monitored closely.",
    "Lines were removed when no longer needed.",
    "Diet was advanced as tolerated.",
    "Prophylaxis was given throughout.",
    "Case management met the family.",
    "Home medications were reconciled.",
)
NEUTRAL_FILM = (
    "Comparison is made with the prior study.",
    "The study is limited by rotation.",
    "No displaced rib fracture is identified.",
    "Upper abdomen is unremarkable.",
    "Patient positioning is suboptimal.",
)
DRUGS = (
    "Acetaminophen 650 mg PO Q6H:PRN",
    "Multivitamin 1 tab PO daily",
    "Docusate sodium 100 mg PO BID",
    "Omeprazole 20 mg PO daily",
    "Senna 8.6 mg PO BID:PRN",
)
