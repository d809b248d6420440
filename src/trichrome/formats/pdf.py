"""Text and title out of PDF files, by pypdf."""

from __future__ import annotations

import io
import logging
import struct
import zlib

#: What pypdf lets out of damaged files besides its own errors.
_DAMAGE = (
    ValueError, KeyError, IndexError, TypeError, AttributeError, AssertionError, RecursionError, OSError,
    ArithmeticError, NotImplementedError, zlib.error, struct.error,
)  # fmt: skip


def pdf_text(data: bytes) -> tuple[str, str, int]:
    """(text, title, number of pages) of a PDF; pages are joined by a blank line.

    A file that is encrypted with the empty password is read. ValueError: it needs a password, or is damaged.
    """
    from pypdf import PasswordType, PdfReader  # loaded only where there is a PDF
    from pypdf.errors import DependencyError, PyPdfError

    logging.getLogger("pypdf").setLevel(logging.ERROR)  # it warns about every oddity it could deal with
    try:
        reader = PdfReader(io.BytesIO(data))
        if reader.is_encrypted and reader.decrypt("") == PasswordType.NOT_DECRYPTED:
            raise ValueError("the PDF is encrypted: it needs a password")
        pages = [page.extract_text().strip() for page in reader.pages]
        title = str(reader.metadata.title or "") if reader.metadata is not None else ""
    except DependencyError:
        raise ValueError("the PDF is encrypted with AES, which needs the package `cryptography`") from None
    except (PyPdfError, *_DAMAGE) as error:
        if isinstance(error, ValueError) and "encrypted" in str(error):
            raise
        raise ValueError(f"the PDF is damaged ({type(error).__name__}: {error!s:.100})") from None
    text = _whole_pairs("\n\n".join(page for page in pages if page))
    return text, " ".join(_whole_pairs(title).split()), len(pages)


def _whole_pairs(text: str) -> str:
    """Join halves of surrogate pairs, which fonts with broken tables give, and put U+FFFD for lone ones."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "")
