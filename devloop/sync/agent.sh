# devloop's agent in a container whose image has a shell and no Python: see protocol.py.
#
# Each request is a number of lines and then so many lines of calls to put, dir, link and gone, all
# words quoted by devloop. `enter` goes to a directory first; after it, names are without slashes and
# everything happens in the working directory, so that no symlink made meanwhile can lead elsewhere.
# A file's content follows on standard input where `put` is met, and then 1 to keep it or 0.
# `read` takes single bytes and dd whole blocks, so neither takes what is the other's.
LC_ALL=C
export LC_ALL
tmp="./.devloop-sync~$$"
here=
step=0

bad() {
  step=$((step + 1))
  printf 'bad %s %s\n' "$step" "$1"
}

good() {
  step=$((step + 1))
}

finish() {
  step=0
  cd /
  echo done
}

why() { # COMMAND...: its complaint, in one line
  said=$("$@" 2>&1) || :
  said=$(printf '%s' "$said" | tr '\n' ' ')
  printf '%s' "${said:-it failed}"
}

enter() { # make|look ROOT PART...
  how=$1
  here=
  if ! cd -P "$2" 2>/dev/null; then
    if [ "$how" = look ]; then here=gone; return; fi
    umask 022
    if ! mkdir -p "$2" 2>/dev/null || ! cd -P "$2" 2>/dev/null; then
      here="bad cannot make $2: $(why mkdir -p "$2")"; return
    fi
  fi
  want=${PWD%/}
  shift 2
  for part; do
    want="$want/$part"
    if [ -h "./$part" ]; then here="bad $want is a symlink in the image"; return; fi
    if ! cd -P "./$part" 2>/dev/null; then
      if [ "$how" = look ] && [ ! -e "./$part" ]; then here=gone; return; fi
      umask 022
      if ! mkdir "./$part" 2>/dev/null || ! cd -P "./$part" 2>/dev/null; then
        here="bad cannot make $want: $(why mkdir "./$part")"; return
      fi
    fi
    if [ "$PWD" != "$want" ]; then here="bad $want leads to $PWD in the image"; return; fi
  done
}

take() { # SIZE FILE: so many bytes of standard input
  whole=$(($1 / 65536))
  rest=$(($1 % 65536))
  if [ "$whole" = 0 ]; then
    dd bs="${1:-1}" count=1 iflag=fullblock of="$2" 2>/dev/null
    return
  fi
  (
    dd bs=65536 count="$whole" iflag=fullblock || exit 1
    [ "$rest" = 0 ] || dd bs="$rest" count=1 iflag=fullblock
  ) >"$2" 2>/dev/null
}

fresh() { # make the temporary file anew, never through a link
  set -C
  { true >"$tmp"; } 2>/dev/null
  made=$?
  set +C
  return "$made"
}

own() { # OWNER LIKE NEW: give NEW its owner, by default that of LIKE
  owner=$1
  if [ -z "$owner" ]; then
    if [ ! -h "$2" ] && [ -O "$2" ] && [ -G "$2" ]; then return 0; fi
    owner=$(stat -c %u:%g "$2" 2>/dev/null) || return 1
  fi
  [ "$owner" = "$me" ] || chown -h "$owner" "$3" 2>/dev/null
}

like() { # NAME: what a new NAME takes its owner from
  if [ -e "./$1" ] || [ -h "./$1" ]; then like="./$1"; else like=.; fi
}

settle() { # NAME: the temporary file takes its place
  if [ -d "./$1" ] || [ -h "./$1" ]; then
    rm -rf "./$1" 2>/dev/null
  fi
  mv -f "$tmp" "./$1" 2>/dev/null && return
  # GNU mv: a link that leads to what it is to replace is "the same file".
  [ -h "$tmp" ] && rm -f "./$1" 2>/dev/null && mv -f "$tmp" "./$1" 2>/dev/null
}

put() { # UMASK MODE OWNER SIZE NAME; MODE is - where the umask gives it
  if [ -n "$here" ]; then
    take "$4" /dev/null || exit 1
    read -r keep || exit 1
    bad "${here#bad }"
    return
  fi
  umask "$1"
  if ! fresh && { rm -f "$tmp" 2>/dev/null; ! fresh; }; then
    take "$4" /dev/null || exit 1
    read -r keep || exit 1
    bad "cannot write in $PWD: $(why touch "$tmp")"
    return
  fi
  if [ "$4" != 0 ] && ! take "$4" "$tmp"; then
    rm -f "$tmp"
    bad "cannot write in $PWD: no space left, or a limit was met"
    exit 1
  fi
  read -r keep || keep=gone
  if [ "$keep" != 1 ]; then
    rm -f "$tmp"
    [ "$keep" = 0 ] || exit 1
    good
  elif like "$5"; ! own "$3" "$like" "$tmp"; then
    rm -f "$tmp"
    bad "cannot give $5 in $PWD its owner"
  elif { [ "$2" != - ] && ! chmod "$2" "$tmp" 2>/dev/null; } || ! settle "$5"; then
    rm -f "$tmp"
    bad "cannot replace $5 in $PWD: $(why touch "./$5")"
  else
    good
  fi
}

link() { # OWNER TARGET NAME
  if [ -n "$here" ]; then bad "${here#bad }"; return; fi
  rm -f "$tmp" 2>/dev/null
  if ! ln -s -- "$2" "$tmp" 2>/dev/null; then
    bad "cannot link $3 in $PWD: $(why touch "$tmp")"
  elif like "$3"; ! own "$1" "$like" "$tmp" || ! settle "$3"; then
    rm -f "$tmp"
    bad "cannot replace $3 in $PWD"
  else
    good
  fi
}

dir() { # MODE OWNER [NAME]; without a name, the directory that was entered
  if [ -n "$here" ]; then bad "${here#bad }"; return; fi
  umask 022
  what=./${3-}
  like=$what
  if [ $# = 3 ] && { [ -h "$what" ] || [ ! -d "$what" ]; }; then
    like=.
    rm -f "$what" 2>/dev/null
    if ! mkdir "$what" 2>/dev/null; then
      bad "cannot make $3 in $PWD: $(why mkdir "$what")"
      return
    fi
  fi
  if ! own "$2" "$like" "$what"; then
    bad "cannot give ${3:-$PWD} its owner"
  elif ! chmod "$1" "$what" 2>/dev/null; then
    bad "cannot set the mode of ${3:-$PWD}: $(why chmod "$1" "$what")"
  else
    good
  fi
}

gone() { # NAME
  case $here in
    gone) good ;;
    '')
      if rm -rf "./$1" 2>/dev/null; then good; else bad "cannot remove $1 in $PWD: $(why rm -r "./$1")"; fi
      ;;
    *) bad "${here#bad }" ;;
  esac
}

me=$(id -u 2>/dev/null):$(id -g 2>/dev/null)
for tool in dd mv rm mkdir chmod ln; do
  if ! command -v "$tool" >/dev/null 2>&1; then
    echo "lacks $tool"
    exit 0
  fi
done
if ! echo ab | dd bs=3 count=1 iflag=fullblock >/dev/null 2>&1; then
  echo "lacks a dd that knows iflag=fullblock"
  exit 0
fi
echo ready
while IFS= read -r lines; do
  request=
  while [ "$lines" -gt 0 ]; do
    IFS= read -r line || exit 1
    request="$request$line
"
    lines=$((lines - 1))
  done
  eval "$request"
done
