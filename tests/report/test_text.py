"""Numbers for people."""

from __future__ import annotations

from optkit.report import text


def test_numbers() -> None:
    assert [text.figure(value) for value in (0.01234, 1.234, 12.34, 1234.5)] == [
        "0.012",
        "1.23",
        "12.3",
        "1\u202f234",
    ]
    assert [text.count(value) for value in (950, 4_010_000, 386_000_000)] == ["950", "4.01 M", "386 M"]
    assert [text.size(value) for value in (12, 1_810_000)] == ["12 B", "1.81 MB"]
    assert [text.points(value) for value in (-0.0031, 0.0004, 0.02)] == ["−0.3", "±0.0", "+2.0"]
    assert [text.duration(value) for value in (4.24, 200, 7500)] == ["4.2 s", "3 min 20 s", "2 h 5 min"]


def test_quantities_of_quantisation() -> None:
    assert [text.decibels(value) for value in (24.26, -3.0)] == ["24.3 dB", "−3.0 dB"]
    assert [text.decibel_change(value) for value in (3.1, -0.24)] == ["+3.1 dB", "−0.2 dB"]


def test_long_node_names_lose_their_middle() -> None:
    assert text.short_name("/blocks/blocks.0/conv_pw/Conv") == "/blocks/blocks.0/conv_pw/Conv"
    short = text.short_name("/start" + 90 * "x" + "/end")
    assert len(short) == 57
    assert (short[:6], short[-4:]) == ("/start", "/end")


def test_a_small_difference_is_shown() -> None:
    ratios = (1.00004, 1.0004, 1.003, 1.019, 1.02, 1.19, 1.2, 3.14, 31.4)
    shown = ["1.00004×", "1.0004×", "1.003×", "1.019×", "1.02×", "1.19×", "1.2×", "3.1×", "31×"]
    assert [text.times(ratio) for ratio in ratios] == shown
