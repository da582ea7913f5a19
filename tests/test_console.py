"""What the console says: one sentence for each mistake, with what to change."""

import pytest

from torchnn.console import MissingPackageError, need


def test_a_missing_package_is_named_with_the_line_that_installs_it() -> None:
    with pytest.raises(MissingPackageError) as caught, need("export", "torchnn export"):
        import a_package_that_nobody_has.inside  # type: ignore[import-not-found] # noqa: F401
    assert str(caught.value) == (
        "torchnn export needs a_package_that_nobody_has, which is not installed: pip install 'torchnn[export]'."
    )
    assert isinstance(caught.value, ImportError)


def test_a_missing_package_is_named_as_pip_names_it() -> None:
    with pytest.raises(MissingPackageError, match="needs scikit-learn, which"), need("train", "torchnn fit"):
        raise ModuleNotFoundError("No module named 'sklearn.base'", name="sklearn.base")


@pytest.mark.parametrize("error", [ImportError("libx.so"), ModuleNotFoundError("gone", name="torchnn.gone")])
def test_an_import_that_fails_for_another_reason_keeps_its_traceback(error: ImportError) -> None:
    with pytest.raises(type(error), match=str(error)) as caught, need("train", "torchnn fit"):
        raise error
    assert caught.value is error
