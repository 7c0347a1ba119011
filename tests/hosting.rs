//! Many apps, one server: a file each, processes only where somebody asks.

mod cgroup;
mod demand;
mod files;
mod hostile;
mod hung;
mod isolation;
mod levels;
mod logs;
mod mischief;
mod orphans;
mod proof;
mod surroundings;
mod users;

use crate::support::only_rswsgi;

fn ours() -> bool {
    only_rswsgi("many apps in one server")
}

/// An application that answers with this and with its process; `import` runs when it is imported.
fn module(answer: &str, import: &str) -> String {
    format!(
        "import os, sys, time\n\
         from talk import note, wait_at\n\
         {import}\n\
         def application(environ, start_response):\n    \
             if environ['PATH_INFO'] == '/wait':\n        \
                 note('waiting')\n        \
                 wait_at('gate')\n    \
             body = b'{answer}'\n    \
             if environ['PATH_INFO'] == '/pid':\n        \
                 body = str(os.getpid()).encode()\n    \
             if environ['PATH_INFO'] == '/master':\n        \
                 body = str(os.getppid()).encode()\n    \
             start_response('200 OK', [('Content-Length', str(len(body)))])\n    \
             return [body]\n"
    )
}
