{{/* files/rules.yaml with metrics.rules applied: a JSON list of groups. Its {{ }} are Prometheus's. */}}
{{- define "filing-clerk.ruleGroups" -}}
{{- $given := .Values.metrics.rules -}}
{{- $groups := list -}}
{{- range $group := (.Files.Get "files/rules.yaml" | fromYaml).groups -}}
{{- $rules := list -}}
{{- range $rule := $group.rules -}}
{{- if not $rule.alert -}}
{{- $rules = append $rules $rule -}}
{{- else -}}
{{- $own := get $given.alerts $rule.alert | default dict -}}
{{- if not (and (hasKey $own "enabled") (not $own.enabled)) -}}
{{- $labels := merge (dict) ($own.labels | default dict) $rule.labels -}}
{{- with $own.severity -}}{{- $_ := set $labels "severity" . -}}{{- end -}}
{{- $_ := set $rule "labels" $labels -}}
{{- with $given.runbookBaseUrl -}}
{{- $url := printf "%s/%s" (trimSuffix "/" .) $rule.annotations.runbook_url -}}
{{- $_ := set $rule.annotations "runbook_url" $url -}}
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

{{/* How many workers the release has at least, under the job that its monitor gives them. Nothing where there is no
     monitor, since the job is not known then, or where there are to be none. */}}
{{- define "filing-clerk.releaseRule" -}}
{{- $name := include "filing-clerk.fullname" . -}}
{{- $workers := .Values.autoscaling.minReplicas | int -}}
{{- $none := false -}}
{{- if eq .Values.autoscaling.kind "none" -}}
{{- $workers = .Values.replicaCount | int -}}
{{- $none = not $workers -}}
{{- end -}}
{{- if not (or $none (eq .Values.metrics.monitor "none")) -}}
- record: job:clerk_release:workers
  expr: {{ printf "vector(%d)" $workers | quote }}
  labels:
    namespace: {{ include "filing-clerk.namespace" . | quote }}
    job: {{ ternary (printf "%s/%s" .Release.Namespace $name) $name (eq .Values.metrics.monitor "pod") | quote }}
{{- end -}}
{{- end -}}
