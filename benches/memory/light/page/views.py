import os
import time

from django.shortcuts import render


def page(request):
    # The first requests take their time, so that they spread over all workers.
    time.sleep(float(request.headers.get("X-Hold", 0)))
    lines = [{"number": number, "text": f"line {number}"} for number in range(20)]
    response = render(request, "page.html", {"title": "One page", "lines": lines})
    response["X-Process"] = str(os.getpid())
    return response
