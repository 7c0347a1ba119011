#!/bin/sh
# Makes a Debian package and prints its path. Needs cargo-deb (cargo install cargo-deb) and dpkg-dev.
#
#   packaging/deb.sh                       of a release build, which is made first
#   packaging/deb.sh DIRECTORY [OPTIONS]   of what cargo has left there; options are those of cargo deb
set -eu
cd "$(dirname "$0")/.."

if [ $# -eq 0 ]; then
    cargo build --release --locked
    set -- "${CARGO_TARGET_DIR:-target}/release"
fi
built=$1
shift

# What the program itself knows best.
made=$built/packaging
mkdir -p "$made"
for program in rswsgi rswsgictl; do
    case $program in
    rswsgi) completions=--completions ;;
    rswsgictl) completions=completions ;;
    esac
    env -i "$built/$program" $completions bash >"$made/$program.bash"
    env -i "$built/$program" $completions zsh >"$made/_$program"
    env -i "$built/$program" $completions fish >"$made/$program.fish"
done
{
    echo "# The configuration of rswsgi.service: name the application (target) and start the service."
    echo "# One application of several has a file of its own beside this one, NAME.toml, and the service"
    echo "# rswsgi@NAME.service."
    env -i "$built/rswsgi" --print-config
} >"$made/rswsgi.toml"

# Left to itself it strips nothing that was built with line numbers.
cargo deb --no-build --quiet --strip "$@"
