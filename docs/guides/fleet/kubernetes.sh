#!/bin/sh
# Workers as pods, for `drivers.fleet = "command"`. An example: it was written from Kubernetes' manual and has not been run against a
# cluster here. A member is a pod of the same name.
#
# It needs kubectl in the PATH with a service account that may create, list and delete pods in the namespace, an image that holds
# `tidemill`, and a secret `tidemill-worker` with the key `token`.
set -eu
NAMESPACE=${TIDEMILL_NAMESPACE:-tidemill}
IMAGE=${TIDEMILL_IMAGE:-registry.internal/tidemill:latest}
MANAGER=${TIDEMILL_MANAGER:-https://tidemill.internal:8080}
# As long as the manager waits for a drained worker, in seconds.
GRACE=${TIDEMILL_GRACE:-600}

number() { printf '%s' "$request" | sed -n "s/.*\"$1\":\([0-9][0-9]*\).*/\1/p"; }

read -r request || true
call=$1
group=$2
case "$call" in
start)
    member=$3
    slots=$(number slots)
    memory=$(number memory)
    # `create` of a pod that is there is an error, `apply` is not.
    kubectl apply --namespace "$NAMESPACE" --filename - >/dev/null <<POD
apiVersion: v1
kind: Pod
metadata:
  name: $member
  labels: { app: tidemill-worker, tidemill-group: $group }
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: $GRACE
  containers:
    - name: worker
      image: $IMAGE
      command: [tidemill, worker, --manager, $MANAGER, --id, $member, --class, $group, --slots, "$slots", --memory, "$memory"]
      env: [{ name: TIDEMILL_TOKEN, valueFrom: { secretKeyRef: { name: tidemill-worker, key: token } } }]
      resources: { requests: { cpu: "$slots", memory: "$memory" }, limits: { memory: "$memory" } }
POD
    ;;
stop)
    # A pod that is deleted gets SIGTERM, on which a worker drains, and is killed after its grace.
    if [ "$4" = kill ]; then
        kubectl delete pod "$3" --namespace "$NAMESPACE" --ignore-not-found --grace-period=0 --force --wait=false >/dev/null
    else
        kubectl delete pod "$3" --namespace "$NAMESPACE" --ignore-not-found --wait=false >/dev/null
    fi
    ;;
list)
    # Pods that have ended stay until somebody removes them.
    kubectl delete pods --namespace "$NAMESPACE" --selector "app=tidemill-worker,tidemill-group=$group" \
        --field-selector 'status.phase!=Pending,status.phase!=Running,status.phase!=Unknown' --wait=false >/dev/null
    kubectl get pods --namespace "$NAMESPACE" --selector "app=tidemill-worker,tidemill-group=$group" \
        --output 'jsonpath={range .items[*]}{.metadata.name}{" "}{.status.phase}{"\n"}{end}' |
        while read -r member phase; do
            case "$phase" in
            Pending) word=waiting ;;
            Running | Unknown) word=running ;;
            *) continue ;;
            esac
            printf '{"member":"%s","state":"%s"}\n' "$member" "$word"
        done
    ;;
*)
    echo "there is no call \`$call\`; there are start, stop and list" >&2
    exit 64
    ;;
esac
