def test_minimal() -> None:
    assert True
