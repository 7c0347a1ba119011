import datetime
import json as codec
import sys

from django.conf import settings
from django.forms import ModelForm
from django.http import FileResponse, HttpResponse, JsonResponse, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import condition, require_POST

from django_site.guestbook.models import Entry, Upload

BLOCK = 64 * 1024
WRITTEN = datetime.datetime(2024, 2, 29, 12, 0, 0, tzinfo=datetime.timezone.utc)


class EntryForm(ModelForm):
    class Meta:
        model = Entry
        fields = ["name", "text"]


class UploadForm(ModelForm):
    class Meta:
        model = Upload
        fields = ["note", "file"]


def book(request):
    form = EntryForm(request.POST or None)
    if form.is_valid():
        form.save()
        return redirect("/")
    status = 400 if form.errors else 200
    return render(request, "book.html", {"form": form, "entries": Entry.objects.order_by("id")}, status=status)


def upload(request):
    form = UploadForm(request.POST or None, request.FILES or None)
    if form.is_valid():
        saved = form.save()
        return JsonResponse({"note": saved.note, "name": saved.file.name, "size": saved.file.size})
    return render(request, "upload.html", {"form": form}, status=400 if form.errors else 200)


def file(request, name):
    """By wsgi.file_wrapper."""
    return FileResponse(open(settings.MEDIA_ROOT / "uploads" / name, "rb"), as_attachment=True)


def stream(request, name):
    """In blocks, without saying how long it is."""

    def blocks():
        with open(settings.MEDIA_ROOT / "uploads" / name, "rb") as source:
            while block := source.read(BLOCK):
                yield block

    return StreamingHttpResponse(blocks(), content_type="application/octet-stream")


@condition(etag_func=lambda request: '"first"', last_modified_func=lambda request: WRITTEN)
def page(request):
    return HttpResponse("a page that says when it was written\n", content_type="text/plain")


@csrf_exempt
@require_POST
def json(request):
    rows = codec.loads(request.body)["rows"]
    return JsonResponse({"count": len(rows), "total": sum(row["number"] for row in rows), "last": rows[-1]})


def about(request):
    return JsonResponse(
        {
            "python": list(sys.version_info[:2]),
            "module": sys.modules["rswsgi"].__file__,
            "forwarded": request.headers.get("X-Forwarded-For"),
            "url": request.build_absolute_uri(),
        }
    )


def broken(request):
    raise LookupError("a view that raises")
