"""Every parity case that we have is read by some test, or listed here as waiting for its code."""

from parity.support import all_cases, folder, roles_with_a_test

# what no test reads yet -> the issue that brings it; a role None stands for the whole system
NOT_YET: dict[tuple[str, str | None], int] = {}


def test_there_are_cases() -> None:
    assert all_cases(), f"no parity case in {folder()}"


def test_every_case_is_tested_or_known_to_wait() -> None:
    known = roles_with_a_test() | set(NOT_YET)
    untested = [
        f"{case.path.name}: {case.system}, {case.role}"
        for case in all_cases()
        if not {(case.system, case.role), (case.system, None)} & known
    ]
    assert not untested


def test_what_is_tested_does_not_wait() -> None:
    roles = roles_with_a_test()
    tested = roles | {(system, None) for system, _ in roles}
    assert not tested & set(NOT_YET), "take these out of NOT_YET"
