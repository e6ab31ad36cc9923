"""Delivery of notices by Airflow's own hooks: a webhook (Slack's too) gets JSON, a mail server a mail."""

from __future__ import annotations

import html
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from patching.report.notice import Notice
    from patching.rollout.site import Site

log = logging.getLogger(__name__)

SECONDS = 15
MAIL = ("smtp", "email")
TOKEN_IN_PASSWORD = "slackwebhook"  # noqa: S105 - a type of connection: its password is the rest of the webhook's URL


def deliver(notice: Notice) -> None:
    """Send one notice over its connection; raises DeliveryFailed with the reason and without secrets."""
    from airflow.sdk import BaseHook

    from patching.rollout.telling import DeliveryFailed

    try:
        connection = BaseHook.get_connection(notice.connection)
        if connection.conn_type in MAIL:
            _mail(notice, connection)
        else:
            _post(notice, connection)
    except DeliveryFailed:
        raise
    except Exception as error:
        # Whatever a hook raises, the notice was not delivered: that is written down, shown and tried again. What the
        # hook says may hold the secret part of a webhook's URL, so only its kind is kept; the log has the rest, masked.
        log.warning("%s could not be told of %s", notice.connection, notice.event, exc_info=True)
        status = getattr(getattr(error, "response", None), "status_code", None)
        said = f" (status {status})" if status else ""
        raise DeliveryFailed(
            f"{type(error).__name__}{said} over connection {notice.connection}; the task's log says more"
        ) from error


def tell_everybody(site: Site) -> list[str]:
    """Send whatever is due anywhere; says what was sent."""
    from patching.rollout.telling import tell_all

    return tell_all(site, deliver)


def tell_of(site: Site, rollout: str) -> list[str]:
    """Send what is due of one rollout at the end of its run; what fails here is patch_reconcile's to do later."""
    from patching.errors import PatchingError
    from patching.rollout.telling import tell_rollout

    try:
        return tell_rollout(site, rollout, deliver)
    except PatchingError as error:
        return [f"nobody was told now, patch_reconcile does it later: {error}"]


def _post(notice: Notice, connection: Any) -> None:
    from airflow.providers.http.hooks.http import HttpHook

    token = connection.password if connection.conn_type == TOKEN_IN_PASSWORD else None
    hook = HttpHook(method="POST", http_conn_id=notice.connection)
    headers = {"Content-Type": "application/json", "Idempotency-Key": notice.id}
    hook.run(endpoint=token, json=notice.payload(), headers=headers, extra_options={"timeout": SECONDS})


def _mail(notice: Notice, connection: Any) -> None:
    from airflow.providers.smtp.hooks.smtp import SmtpHook

    from patching.rollout.telling import DeliveryFailed

    to = connection.extra_dejson.get("to")
    if not to:
        raise DeliveryFailed(f'connection {notice.connection} has no "to" in its extra: nobody would get the mail')
    subject = f"[patching] {notice.policy}: {notice.event}"
    body = f"<p>{html.escape(notice.text)}</p><p>notice {html.escape(notice.id)}</p>"
    threading = {"References": f"<{notice.rollout or notice.event}@patching>"}
    with SmtpHook(smtp_conn_id=notice.connection) as hook:
        hook.send_email_smtp(to=to, subject=subject, html_content=body, custom_headers=threading)
