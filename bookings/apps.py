from django.apps import AppConfig
from django.db.models.signals import post_migrate


class BookingsConfig(AppConfig):
    name = "bookings"
    verbose_name = "Bookings"

    def ready(self):
        from bookings import feed_views, follow_views, following, mail, notices
        from bookings.overlap import OVERLAP
        from bookings.stamps import STAMPS
        from people import sections

        post_migrate.connect(OVERLAP.ensure, sender=self, dispatch_uid="bookings.overlap")
        post_migrate.connect(STAMPS.ensure, sender=self, dispatch_uid="bookings.stamps")
        notices.register(mail.on_notice, in_transaction=True)
        notices.register(following.on_notice)
        sections.register("bookings/_feeds.html", feed_views.section)
        sections.register("bookings/_follows.html", follow_views.section)
