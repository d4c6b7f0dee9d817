#!/bin/sh
# Kills the process groups of one stack when the test that started them is gone,
# however it went: then the pipe on standard input ends.
#
#   hold PGID    kill this group at the end
#   free PGID    it has ended already
groups=" "
while read -r order group; do
    case $order in
        hold) groups="$groups$group " ;;
        free) groups=$(printf '%s' "$groups" | sed "s/ $group / /") ;;
    esac
done
for group in $groups; do
    kill -s KILL -- "-$group" 2>/dev/null
done
