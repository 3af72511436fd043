# Whether the edge serves its page. The public image of Caddy has busybox's wget and no bash; one on Debian, the reverse.
if command -v wget >/dev/null; then
    exec wget -q -T 2 -O /dev/null "http://127.0.0.1:$FRONTEND_PORT/"
fi
# shellcheck disable=SC2016 # bash is to expand it
exec bash -c '
    exec 3<>"/dev/tcp/127.0.0.1/$FRONTEND_PORT" && printf "HEAD / HTTP/1.0\r\n\r\n" >&3 && read -r -t 2 _ status _ <&3
    echo "the page: ${status:-no answer}"
    [ "$status" = 200 ]'
