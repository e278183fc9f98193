"""The 37 categories of the SA-SV benchmark: 21 instruments and 16 tissues, in the paper's order."""

from __future__ import annotations

INSTRUMENTS = (
    "ligature",
    "grasper",
    "dissecting grasper",
    "hook",
    "needle driver",
    "bipolar forceps",
    "clip applier",
    "monopolar scissors",
    "prograsp forceps",
    "scissors",
    "bipolar",
    "suction",
    "needle holder",
    "snare",
    "catheter",
    "ultrasound probe",
    "vessel sealer",
    "grasping retractor",
    "suturing needle",
    "thread",
    "clamp",
)

TISSUES = (
    "uterus",
    "liver",
    "fat",
    "abdominal wall",
    "polyp",
    "gastrointestinal tract",
    "gallbladder",
    "connective tissue",
    "spleen",
    "hepatic vein",
    "liver ligament",
    "colon",
    "kidney parenchyma",
    "covered kidney",
    "small intestine",
    "cystic duct",
)

UNKNOWN = "unknown"  # the class of a target that no bank name fits well enough
