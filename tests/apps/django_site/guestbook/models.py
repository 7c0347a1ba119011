from django.db import models


class Entry(models.Model):
    name = models.CharField(max_length=100)
    text = models.TextField()
    written = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name_plural = "entries"

    def __str__(self):
        return f"{self.name}: {self.text[:20]}"


class Upload(models.Model):
    note = models.CharField(max_length=100)
    file = models.FileField(upload_to="uploads")
