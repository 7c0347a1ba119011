from decimal import Decimal

from django.core.management.base import BaseCommand

from catalogue.models import Label, Maker, Product


class Command(BaseCommand):
    help = "Fills an empty database"

    def handle(self, **options):
        if Product.objects.exists():
            return
        makers = [Maker.objects.create(name=f"Maker {n}", country="Norway") for n in range(5)]
        labels = [Label.objects.create(word=f"label-{n}") for n in range(8)]
        for n in range(60):
            made = Product.objects.create(
                name=f"Product {n:02}", price=Decimal(n) + Decimal("0.99"), maker=makers[n % 5]
            )
            made.labels.set(labels[n % 4 : n % 4 + 3])
