"""Every parity case of a system that we have is read by some test."""

from parity.support import all_cases, folder, roles_with_a_test


def test_there_are_cases() -> None:
    assert all_cases(), f"no parity case in {folder()}"


def test_no_case_of_a_known_system_goes_untested() -> None:
    roles = roles_with_a_test()
    systems = {system for system, _ in roles}
    untested = [
        f"{case.path.name}: {case.system}, {case.role}"
        for case in all_cases()
        if case.system in systems and (case.system, case.role) not in roles
    ]
    assert not untested
