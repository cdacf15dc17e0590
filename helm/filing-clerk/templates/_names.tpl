{{/* Names and labels. */}}

{{/* The release's name with the chart's, unless it holds it. Begins with a letter, as Services must. */}}
{{- define "filing-clerk.fullname" -}}
{{- $name := .Values.fullnameOverride -}}
{{- if not $name -}}
{{- $name = ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) (contains .Chart.Name .Release.Name) -}}
{{- if regexMatch "^[^a-z]" $name -}}
{{- $name = printf "r%s" $name -}}
{{- end -}}
{{- end -}}
{{- $name | replace "." "-" | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{/* Where everything goes. */}}
{{- define "filing-clerk.namespace" -}}
{{- .Values.namespaceOverride | default .Release.Namespace -}}
{{- end -}}

{{/* A name of its own for a part: (list . "topics"). 52 characters is the longest a CronJob may have. */}}
{{- define "filing-clerk.part" -}}
{{- $suffix := index . 1 -}}
{{- printf "%s-%s" (include "filing-clerk.fullname" (index . 0) | trunc (int (sub 51 (len $suffix))) | trimSuffix "-") $suffix -}}
{{- end -}}

{{/* What selects the pods of a part: (list . "worker"). Never changes: a Deployment's selector cannot. */}}
{{- define "filing-clerk.selector" -}}
app.kubernetes.io/name: {{ (index . 0).Chart.Name | quote }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name | quote }}
app.kubernetes.io/component: {{ index . 1 | quote }}
{{- end -}}

{{- define "filing-clerk.labels" -}}
{{- $root := index . 0 -}}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" | quote }}
{{ include "filing-clerk.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | replace "+" "_" | trunc 63 | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service | quote }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Labels of a pod: (list . "topics" further). Those that select it, and what the values say: a new version of the
     chart alone restarts no worker. */}}
{{- define "filing-clerk.podLabels" -}}
{{ include "filing-clerk.selector" . }}
{{- with merge (dict) (index . 2) (index . 0).Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "filing-clerk.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "filing-clerk.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{/* The account of the topics job: one of its own, for a job before the install finds no account of the release. */}}
{{- define "filing-clerk.topicsAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- include "filing-clerk.part" (list . "topics") -}}
{{- else -}}
{{- include "filing-clerk.serviceAccountName" . -}}
{{- end -}}
{{- end -}}

{{/* An image whole: (list . .Values.image). */}}
{{- define "filing-clerk.image" -}}
{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository ($image.tag | default (index . 0).Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* The image of small tasks: of the topics' job, which may be a slim one, or the worker's. */}}
{{- define "filing-clerk.toolsImage" -}}
{{- .Values.topics.image | default (include "filing-clerk.image" (list . .Values.image)) -}}
{{- end -}}

{{/* The input topic, where it is one and named; else nothing. */}}
{{- define "filing-clerk.onlyInput" -}}
{{- $inputs := (include "filing-clerk.config" . | fromJson).kafka.input_topics -}}
{{- if eq (len $inputs) 1 -}}
{{- if not (hasPrefix "^" (first $inputs)) -}}
{{- first $inputs -}}
{{- end -}}
{{- end -}}
{{- end -}}
