from worldeval.data.matching import near, such_as


def test_what_typing_and_spreadsheets_change_is_found() -> None:
    known = ["two words", "reach/evaluation/0003", "reach/evaluation/0004", "Full", "no-wrist"]
    assert near("two  words ", known) == near("TWO_WORDS", known) == "two words"
    assert near("reach/evaluation/3", known) == "reach/evaluation/0003"
    assert near("full", known) == "Full" and near("no wrst", known) == "no-wrist"
    assert near("reach/evaluation/0005", known) is None  # another number is another start state
    assert near("anything", known) is None and near("x", []) is None


def test_only_what_is_nowhere_known_is_asked_about() -> None:
    known = [("a", "push", "s1"), ("b", "pull", "s2")]
    strange = [
        ("A", "push", "s2"),
        ("b", "push", "s9"),
        ("c", "", ""),
        ("d", "", ""),
        ("e", "", ""),
    ]
    told = such_as(strange, known)
    assert told.startswith("such as policy 'A', task 'push', start 's2'; policy 'b', task 'push'")
    assert told.endswith("; and 2 more (did you mean policy 'a'?)")
    assert such_as([("a", "pull", "s1")], known).endswith("start 's1'")
    assert such_as([("key 1",)], [("Key 1",), *known]) == "such as 'key 1' (did you mean 'Key 1'?)"
