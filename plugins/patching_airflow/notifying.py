"""Delivery of notices by Airflow notifiers: HTTP (Slack's webhooks too) and mail, or whichever a connection names.

Calling a notifier swallows its error, and a notice that was not delivered would count as told. So ``notify`` is called.
"""

from __future__ import annotations

import html
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk import BaseNotifier

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
        notifier = _notifier(notice, BaseHook.get_connection(notice.connection))
        notifier.notify({})
    except DeliveryFailed:
        raise
    except Exception as error:
        # Whatever a notifier raises, the notice was not delivered: that is written down, shown and tried again. What it
        # says may hold the secret part of a webhook's URL, so only its kind is kept; the log has the rest, masked.
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


def _notifier(notice: Notice, connection: Any) -> BaseNotifier:
    """Choose by the connection; raises DeliveryFailed where it lacks what its notifier needs."""
    if connection.extra_dejson.get("notifier"):
        return _named(notice, connection)
    return _mail(notice, connection) if connection.conn_type in MAIL else _post(notice, connection)


def _post(notice: Notice, connection: Any) -> BaseNotifier:
    from airflow.providers.http.notifications.http import HttpNotifier

    return HttpNotifier(
        http_conn_id=notice.connection,
        endpoint=connection.password if connection.conn_type == TOKEN_IN_PASSWORD else None,
        json=notice.payload(),
        headers={"Content-Type": "application/json", "Idempotency-Key": notice.id},
        extra_options={"timeout": SECONDS},
    )


def _mail(notice: Notice, connection: Any) -> BaseNotifier:
    from airflow.providers.smtp.notifications.smtp import SmtpNotifier

    from patching.rollout.telling import DeliveryFailed

    to = connection.extra_dejson.get("to")
    if not to:
        raise DeliveryFailed(f'connection {notice.connection} has no "to" in its extra: nobody would get the mail')
    return SmtpNotifier(
        smtp_conn_id=notice.connection,
        to=to,
        subject=f"[patching] {notice.policy}: {notice.event}",
        html_content=f"<p>{html.escape(notice.text)}</p><p>notice {html.escape(notice.id)}</p>",
        custom_headers={"References": f"<{notice.rollout or notice.event}@patching>"},
    )


def _named(notice: Notice, connection: Any) -> BaseNotifier:
    """Make the notifier that the connection names; its templated arguments see the fields of the notice."""
    from airflow.sdk import BaseNotifier
    from airflow.sdk.module_loading import import_string

    from patching.rollout.telling import DeliveryFailed

    name, arguments = connection.extra_dejson["notifier"], connection.extra_dejson.get("arguments", {})
    try:
        kind = import_string(name)
        if not issubclass(kind, BaseNotifier):
            raise TypeError("it is no notifier")
        notifier: BaseNotifier = kind(**arguments)
    except (ImportError, TypeError, ValueError) as error:
        raise DeliveryFailed(
            f"connection {notice.connection} names the notifier {name}, which cannot be made ({error}): its extra "
            'needs "notifier", the path of an installed class, and "arguments", what that class takes'
        ) from error
    notifier.render_template_fields(notice.payload())
    return notifier
