#!/bin/sh
# The calls of the interface's page, as curl lines, on a mount "testmount" of a server at $1. Prints every answer on a
# line of its own. $2: a log to hand in; $3: the number of a restore that is there, $4: one that is not.
set -eu
cd "$(dirname "$2")"
B=$1/druva-phoenix/v1
LOG=$(basename "$2")

curl -s -S -X PUT "$B/mounts/testmount/backup"; echo
curl -s -S -X GET "$B/mounts/testmount/backup"; echo
curl -s -S -X POST "$B/mounts/testmount/backup"; echo
curl -s -S -X POST "$B/mounts/testmount/backup"; echo
curl -s -S -X POST -F "file=@$LOG" -F "mountpoint=/local/testmount" -F "platform=linux" "$B/mounts/testmount/uploadlog"; echo
curl -s -S -X PUT "$B/mounts/testmount/backup"; echo
curl -s -S -X PUT "$B/mounts/testmount/backup"; echo
curl -s -S -X POST -F "file=@$LOG" -F "mountpoint=/local/testmount" -F "platform=linux" "$B/mounts/testmount/uploadlog"; echo
curl -s -S -X DELETE "$B/mounts/testmount/restores/$3"; echo
curl -s -S -X DELETE "$B/mounts/testmount/restores/$4"; echo
curl -s -S -X GET "$B/mounts/TestMount/backup"; echo
