import os
import time


def name_the_process(get_response):
    """Says which worker answered, so that the benchmark knows when all of them have served."""

    def middleware(request):
        # The first requests take their time, so that they spread over all workers.
        time.sleep(float(request.headers.get("X-Hold", 0)))
        response = get_response(request)
        response["X-Process"] = str(os.getpid())
        return response

    return middleware
