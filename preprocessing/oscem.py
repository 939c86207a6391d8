"""A session's metadata by the OSC-EM schema for single particle analysis (version 1.0.2), as far as it is known.

Quantities are {value, unit}; the schema is closed, so nothing else may be there. What it asks for and EMhub does not
record is what holds for single particle analysis at nearly any facility: a field emission gun, flood beam, bright
field, and images not binned by the camera beyond the pixel size given. Averages are left out: EMhub keeps medians.
"""

from typing import Any

from preprocessing.models import ClassAverage, ProcessingRun
from preprocessing.statistics import session_statistics


class Incomplete(Exception):
    """The schema needs what nobody entered; the message names it."""


def metadata(session) -> dict[str, Any]:
    """The document. Raises Incomplete without a pixel size."""
    microscope = session.microscope
    if session.pixel_size is None:
        raise Incomplete("OSC-EM needs the pixel size: enter it on the session first.")
    summary = session.summary
    runs = list(ProcessingRun.objects.filter(session=session).order_by("pk"))
    leading = next((run for run in runs if run.pk == summary.leading_run), None)
    document = {
        "acquisition": _known(
            {
                "technique": "spa",
                "detectors": [_known({"name": session.camera.name if session.camera else None})],
                "date_time": session.start.isoformat(),
                "binning_camera": {"height": 1, "width": 1},
                "pixel_size": _quantity(session.pixel_size, "Å"),
                "dose_per_movie": _quantity(session.total_dose, "e/Å^2"),
                "nominal_magnification": session.magnification,
                "frames_per_movie": session.frames,
                "exposure_time": _quantity(session.exposure_time, "s"),
                "images_generated": session.movies,
                "energy_filter": None
                if session.energy_slit is None
                else {
                    "used": session.energy_slit > 0,
                    "width_energy_filter": _quantity(session.energy_slit, "eV"),
                },
            }
        ),
        "instrument": _known(
            {
                "microscope": _known({"model": microscope.model or microscope.name}),
                "illumination": "FloodBeam",
                "imaging": "Brightfield",
                "electron_source": "FEG",
                "acceleration_voltage": _quantity(session.voltage_kv or microscope.voltage_kv, "kV"),
                "cs": _quantity(session.cs_mm if session.cs_mm is not None else microscope.cs_mm, "mm"),
            }
        ),
    }
    if leading is not None:
        fields = session_statistics(session, summary, runs)[str(leading.pk)]
        document["processing"] = _processing(session, leading, fields)
    return document


def _processing(session, run: ProcessingRun, fields: dict[str, dict]) -> dict[str, Any]:
    found = {
        "movies": _known({"dose_per_image": _quantity(session.dose_per_frame, "e/Å²")}),
        "micrographs": {"number_micrographs": run.micrographs},
        "ctfs": _known(
            {
                "defocus": _range(fields.get("defocus"), "defocus"),
                "resolution": _range(fields.get("ctf_resolution"), "resolution"),
            }
        ),
    }
    if run.picked:
        found["coordinates"] = {
            "number_particles": run.particles,
            "particles_per_micrograph": round(run.particles / run.picked, 2),
        }
    classes = [row.particles for row in ClassAverage.objects.latest_set(run)]
    if classes:
        found["classes2D"] = {"particles_per_2Dclass": sorted(classes, reverse=True)}
    return _known(found)


def _range(numbers: dict | None, name: str) -> dict | None:
    """Smallest and largest value in Å."""
    if numbers is None:
        return None
    return {
        f"output_min_{name}": _quantity(numbers["min"], "Å"),
        f"output_max_{name}": _quantity(numbers["max"], "Å"),
    }


def _quantity(value: float | None, unit: str) -> dict | None:
    return None if value is None else {"value": value, "unit": unit}


def _known(values: dict[str, Any]) -> dict[str, Any]:
    """Without what is not known, as the schema has no null."""
    return {name: value for name, value in values.items() if value not in (None, {})}
