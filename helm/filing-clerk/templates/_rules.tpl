{{/* The release's values of the label job in Prometheus, as a JSON list: the workers', then the desk's if there is one. From
     metrics.rules.jobs, or else the jobs that the monitors set; empty without either. */}}
{{- define "filing-clerk.jobs" -}}
{{- $jobs := .Values.metrics.rules.jobs -}}
{{- if and (not $jobs) (ne .Values.metrics.monitor "none") -}}
{{- $names := list (include "filing-clerk.fullname" .) -}}
{{- if .Values.desk.enabled -}}{{- $names = append $names (include "filing-clerk.part" (list . "desk")) -}}{{- end -}}
{{- range $names -}}
{{- $jobs = append $jobs (ternary (printf "%s/%s" (include "filing-clerk.namespace" $) .) . (eq $.Values.metrics.monitor "pod")) -}}
{{- end -}}
{{- end -}}
{{- toJson $jobs -}}
{{- end -}}

{{/* PromQL matchers that select only this release's series. */}}
{{- define "filing-clerk.ownSeries" -}}
{{- $quoted := list -}}
{{- range include "filing-clerk.jobs" . | fromJsonArray -}}
{{- $quoted = append $quoted (regexQuoteMeta . | replace "\\" "\\\\") -}}
{{- end -}}
{{- printf "namespace=%q,job=~\"%s\"" (include "filing-clerk.namespace" .) (join "|" $quoted) -}}
{{- end -}}

{{/* files/rules.yaml limited to this release, as a JSON list of groups. The expressions in the file cover all releases that
     a Prometheus scrapes. Here each selector gets this release's matchers. Otherwise the alerts of one release would fire
     for another's workers, and two releases would record the same series. The labels, which the results have anyway, keep
     Prometheus's linter from reporting the rules of two releases as duplicates. The {{ }} in the file are Prometheus's. */}}
{{- define "filing-clerk.ruleGroups" -}}
{{- $given := .Values.metrics.rules -}}
{{- $own := include "filing-clerk.ownSeries" . -}}
{{- $jobs := include "filing-clerk.jobs" . | fromJsonArray -}}
{{- $runbooks := $given.runbookBaseUrl | trimSuffix "/" -}}
{{- $seconds := $given.objective.seconds | toString -}}
{{- $slow := $given.objective.slowRatio | toString -}}
{{- $lag := $given.groupLag -}}
{{- if not $lag -}}
{{- $of := include "filing-clerk.fullname" . -}}
{{- $lag = printf "keda_scaler_metrics_value{scaledObject=%q,exported_namespace=%q} or keda_scaler_metrics_value{scaledObject=%q,namespace=%q}" $of (include "filing-clerk.namespace" .) $of (include "filing-clerk.namespace" .) -}}
{{- end -}}
{{- $groups := list -}}
{{- range $group := (.Files.Get "files/rules.yaml" | fromYaml).groups -}}
{{- $rules := list -}}
{{- $job := eq $group.name "filing-clerk.desk" | ternary (last $jobs) (first $jobs) -}}
{{- $source := dict "namespace" (include "filing-clerk.namespace" $) "job" $job -}}
{{- range $rule := $group.rules -}}
{{- $expr := $rule.expr | replace "60(\\\\.0)?" (printf "%s(\\\\.0)?" $seconds) | replace "* 0.01" (printf "* %s" $slow) -}}
{{- if eq ($rule.record | default "") "job:clerk_group_lag:max" -}}{{- $expr = printf "max(%s)" $lag -}}{{- end -}}
{{- $_ := set $rule "expr" $expr -}}
{{- $named := regexReplaceAll "((?:job:)?\\bclerk_[a-zA-Z0-9_:]+)" $rule.expr (printf "${1}{%s}" $own) -}}
{{- $_ := set $rule "expr" ($named | replace "}{" ",") -}}
{{- $_ := set $rule "labels" (merge (dict) ($rule.labels | default dict) $source) -}}
{{- if not $rule.alert -}}
{{- $rules = append $rules $rule -}}
{{- else -}}
{{- $changed := get $given.alerts $rule.alert | default dict -}}
{{- if not (and (hasKey $changed "enabled") (not $changed.enabled)) -}}
{{- $labels := merge (dict) ($changed.labels | default dict) $rule.labels -}}
{{- with $changed.severity -}}{{- $_ := set $labels "severity" . -}}{{- end -}}
{{- $_ := set $rule "labels" $labels -}}
{{- if hasPrefix "ClerkLatencyBurns" $rule.alert -}}
{{- $_ := set $rule.annotations "summary" ($rule.annotations.summary | replace " 60 s " (printf " %s s " $seconds)) -}}
{{- $_ := set $rule.annotations "description" ($rule.annotations.description | replace "at most 1 %" (printf "at most %v %%" (mulf 100 $given.objective.slowRatio))) -}}
{{- end -}}
{{- with $changed.expr -}}{{- $_ := set $rule "expr" . -}}{{- end -}}
{{- with $changed.for -}}{{- $_ := set $rule "for" . -}}{{- end -}}
{{- if $runbooks -}}
{{- $_ := set $rule.annotations "runbook_url" (printf "%s/%s" $runbooks $rule.annotations.runbook_url) -}}
{{- else -}}
{{- $_ := unset $rule.annotations "runbook_url" -}}
{{- end -}}
{{- $rules = append $rules $rule -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if $rules -}}
{{- $_ := set $group "rules" $rules -}}
{{- $groups = append $groups $group -}}
{{- end -}}
{{- end -}}
{{- toJson $groups -}}
{{- end -}}

{{/* The recording rule for the least number of workers of the release. Empty if it is to have none. */}}
{{- define "filing-clerk.releaseRule" -}}
{{- $workers := .Values.autoscaling.minReplicas | int -}}
{{- $none := false -}}
{{- if eq .Values.autoscaling.kind "none" -}}
{{- $workers = .Values.replicaCount | int -}}
{{- $none = not $workers -}}
{{- end -}}
{{- if not $none -}}
- record: job:clerk_release:workers
  expr: {{ printf "vector(%d)" $workers | quote }}
  labels:
    namespace: {{ include "filing-clerk.namespace" . | quote }}
    job: {{ include "filing-clerk.jobs" . | fromJsonArray | first | quote }}
{{- end -}}
{{- end -}}
