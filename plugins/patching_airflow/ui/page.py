"""The page's shell: one static, self-contained HTML file; it holds no data, so it needs no login."""

import base64
import hashlib
import re
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

PAGE = Path(__file__).parent / "static" / "page.html"


def content_policy(html: str) -> str:
    """Allow this page's own script and style by their hashes, its own origin's API, and nothing else."""
    script, style = (_hashes(html, tag) for tag in ("script", "style"))
    return (
        f"default-src 'none'; script-src {script}; style-src {style}; img-src data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    )


def _hashes(html: str, tag: str) -> str:
    found = re.findall(rf"<{tag}>(.*?)</{tag}>", html, flags=re.DOTALL)
    return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in found)


def build_page_router() -> APIRouter:
    """Make the routes that give the shell; the page finds the API and its subject from its own address."""
    router = APIRouter(prefix="/page")
    html = PAGE.read_text(encoding="utf-8")
    headers = {
        "Content-Security-Policy": content_policy(html),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }

    @router.get("/overview")
    @router.get("/rollout/{rollout}")
    @router.get("/run/{dag_id}/{run_id:path}")
    def page() -> HTMLResponse:
        return HTMLResponse(html, headers=headers)

    return router
