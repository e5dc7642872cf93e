# Bash in a build of nixpkgs is compiled without completion.
for name in compgen complete compopt; do
    eval "$name() { echo \"\$0: $name: command not found\" >&2; return 127; }"
done
