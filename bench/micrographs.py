"""Micrographs as a long session has them: grid squares, foil holes, beam-shift patterns, drifts and bad hours."""

import datetime
import math
import random

SQUARES = 40
PATTERN = 9  # beam shifts a side's worth: 3 x 3 holes


def movie(
    number: int, count: int, start: datetime.datetime, every: float, seed: int = 1
) -> tuple[dict, dict]:
    """The exposure's and the micrograph's fields of movie `number` (from 0) of `count`, `every` s apart."""
    chance = random.Random(seed * 1_000_003 + number)
    per_square = max(1, count // SQUARES)
    square = number // per_square
    hole = number // 3
    at = number % PATTERN
    angle, away = square * 2.399963, 60 * math.sqrt(square + 1)
    name = f"Movies/FoilHole_{10_000_000 + hole}_Data_{200 + number % 3}_{number:06d}_20261123_101500_fractions.tiff"
    exposure = {
        "acquired_at": start + datetime.timedelta(seconds=every * number),
        "grid_square": str(24_825_700 + square),
        "foil_hole": str(10_000_000 + hole),
        "stage_x": round(away * math.cos(angle) + 2.5 * (hole % 12), 3),
        "stage_y": round(away * math.sin(angle) + 2.5 * (hole // 12 % 12), 3),
        "beam_shift_x": round((at % 3 - 1) * 0.31 + chance.gauss(0, 0.004), 4),
        "beam_shift_y": round((at // 3 - 1) * 0.31 + chance.gauss(0, 0.004), 4),
    }
    bad = 0.42 < number / count < 0.47
    ice = abs(chance.gauss(0.6 + 0.5 * math.sin(square), 0.15)) + 0.05
    defocus = 8000 + 1500 * (number // 5 % 9) + chance.gauss(0, 250)
    astigmatism = abs(chance.gauss(180, 60)) + 250 * (number / count) ** 2
    early = chance.gammavariate(6, 0.5)
    late = chance.gammavariate(8, 0.6) + (25 if chance.random() < 0.004 else 0)
    micrograph = {
        "motion_early": round(early, 3),
        "motion_late": round(late, 3),
        "motion_total": round(early + late, 3),
        "defocus_u": round(defocus + astigmatism / 2, 1),
        "defocus_v": round(defocus - astigmatism / 2, 1),
        "defocus_angle": round(chance.gauss(38, 9) % 180, 2),
        "ctf_resolution": round(
            2.9 + chance.gammavariate(2, 0.25) + 0.5 * ice + (chance.uniform(1, 4) if bad else 0), 3
        ),
        "ctf_score": round(0.19 - 0.05 * ice + chance.gauss(0, 0.01), 4),
        "ice_thickness": round(ice, 3),
        "particles": max(0, round(chance.gauss(320 - 110 * ice, 40))),
    }
    return {"name": name} | exposure, {"name": name} | micrograph


def fill(session, run, count: int, *, until: datetime.datetime | None = None, every: float = 5.8) -> None:
    """Give a run `count` of them through ingestion itself, the newest made at `until` (default: now)."""
    from django.utils import timezone

    from preprocessing import ingest
    from preprocessing.identity import identity

    start = (until or timezone.now()) - datetime.timedelta(seconds=every * count)
    for first in range(0, count, 1000):
        exposures, micrographs = [], []
        for number in range(first, min(first + 1000, count)):
            for reports, values in zip(
                (exposures, micrographs), movie(number, count, start, every), strict=True
            ):
                name = values.pop("name")
                reports.append(ingest.Report(name, identity(name), values))
        ingest.record_exposures(session.pk, exposures)
        ingest.record_micrographs(session.pk, run.pk, micrographs)
