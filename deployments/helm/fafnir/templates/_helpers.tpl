{{/* Ports and calls of the services: the one table of this chart. `calls` are the services that it calls, `needs` the servers.
     sim has a door for operations alone. */}}
{{- define "fafnir.table" -}}
gateway: { port: 8080, calls: [auth-service, security-service, user-service, stock-service, order-service, portfolio-service, trade-engine], needs: [nats] }
auth-service: { port: 8081, calls: [security-service, user-service, portfolio-service], needs: [postgres, nats] }
security-service: { port: 8082, calls: [], needs: [postgres, nats] }
user-service: { port: 8083, calls: [security-service, stock-service], needs: [postgres, nats] }
stock-service: { port: 8084, calls: [trade-engine], needs: [postgres, nats] }
order-service: { port: 8085, calls: [trade-engine], needs: [postgres, nats] }
portfolio-service: { port: 8086, calls: [trade-engine, stock-service], needs: [postgres, nats] }
trade-engine: { port: 8087, calls: [], needs: [nats, redis] }
sim: { port: 8088, calls: [trade-engine, stock-service, order-service, portfolio-service, auth-service, user-service], needs: [nats] }
seed: { calls: [stock-service, portfolio-service, auth-service, user-service, trade-engine], needs: [] }
migrate: { calls: [], needs: [postgres] }
{{- end }}

{{- define "fafnir.name" -}}{{ default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}{{- end }}
{{- define "fafnir.fullname" -}}
{{- if contains (include "fafnir.name" .) .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name (include "fafnir.name" .) | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}
{{- define "fafnir.secret" -}}
{{- if .Values.secrets.existing }}{{ .Values.secrets.existing }}{{ else if .Values.secrets.create }}{{ include "fafnir.fullname" . }}{{ else }}{{ fail "secrets.existing must name a Secret (see the chart's README), or secrets.create be true" }}{{ end }}
{{- end }}
{{- define "fafnir.image" -}}
{{ .Values.image.repository }}{{ if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ default .Chart.AppVersion .Values.image.tag }}{{ end }}
{{- end }}

{{/* Of (root, component). */}}
{{- define "fafnir.selector" -}}
app.kubernetes.io/name: {{ include "fafnir.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}
{{- define "fafnir.labels" -}}
{{ include "fafnir.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{/* How services are reached, and probed. */}}
{{- define "fafnir.scheme" -}}{{ .Values.tls.enabled | ternary "https" "http" }}{{- end }}
{{- define "fafnir.probe" -}}{{ .Values.tls.enabled | ternary "HTTPS" "HTTP" }}{{- end }}

{{/* The Secret of a component's certificate, of (root, component). */}}
{{- define "fafnir.certificate" -}}
{{- $names := dict "gateway" "api-gateway" "sim" "simulator" "seed" "platform" "migrate" "platform" -}}
{{ .root.Values.tls.secret | replace "{}" (get $names .component | default .component) }}
{{- end }}
{{- define "fafnir.certificateEnv" -}}
- { name: FAFNIR_TLS_CERTIFICATE, value: /etc/fafnir-tls/tls.crt }
- { name: FAFNIR_TLS_KEY, value: /etc/fafnir-tls/tls.key }
- { name: FAFNIR_TLS_AUTHORITY, value: /etc/fafnir-tls/ca.crt }
{{- end }}
{{- define "fafnir.certificateVolume" -}}
- { name: certificate, secret: { secretName: {{ include "fafnir.certificate" . }}, defaultMode: 0440 } }
{{- end }}

{{/* A value as fafnir.toml has it: its numbers are whole. */}}
{{- define "fafnir.toml" -}}
{{- if kindIs "string" . }}{{ toJson . }}{{ else if kindIs "bool" . }}{{ . }}{{ else if kindIs "slice" . }}{{ toJson . }}{{ else }}{{ int64 . }}{{ end }}
{{- end }}

{{/* Environment of a process, of (root, component): the secrets that it uses, and no other. */}}
{{- define "fafnir.env" -}}
- { name: FAFNIR_DATA_DIR, value: /var/lib/fafnir }
{{- if .root.Values.tls.enabled }}
{{ include "fafnir.certificateEnv" . }}
{{- end }}
{{- $row := get (include "fafnir.table" .root | fromYaml) .component }}
{{- $secrets := dict "FAFNIR_SECRET_SERVICE_TOKEN" "service-token" }}
{{- if has "postgres" $row.needs }}{{ $_ := set $secrets "FAFNIR_DATABASE_URL" "database-url" }}{{ end }}
{{- if has "redis" $row.needs }}{{ $_ := set $secrets "FAFNIR_REDIS_URL" "redis-url" }}{{ end }}
{{- /* Also who does not connect is told that there is no broker of its own. */}}
{{- $_ := set $secrets "FAFNIR_NATS_URL" "nats-url" }}
{{- $_ := set $secrets "FAFNIR_SECRET_NATS_SERVICES" "nats-services" }}
{{- if eq .component "gateway" }}{{ $_ := set $secrets "FAFNIR_SECRET_NATS_SESSIONS" "nats-sessions" }}{{ end }}
{{- if has .component (list "gateway" "auth-service") }}{{ $_ := set $secrets "FAFNIR_SECRET_CSRF_KEY" "csrf-key" }}{{ end }}
{{- if eq .component "security-service" }}{{ $_ := set $secrets "FAFNIR_SECRET_AUDIT_KEY" "audit-key" }}{{ end }}
{{- if eq .component "auth-service" }}{{ $_ := set $secrets "FAFNIR_SECRET_JWT_KEY" "jwt-key" }}{{ end }}
{{- range $variable, $key := $secrets }}
- name: {{ $variable }}
  valueFrom: { secretKeyRef: { name: {{ include "fafnir.secret" $.root }}, key: {{ $key }} } }
{{- end }}
{{- with .root.Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "fafnir.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
{{- end }}

{{/* A container, of (root, component, name, command, resources). */}}
{{- define "fafnir.container" -}}
name: {{ .name }}
image: {{ include "fafnir.image" .root | quote }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
args: {{ toJson (concat (list "--config" "/etc/fafnir/fafnir.toml") .command) }}
env:
  {{- include "fafnir.env" . | nindent 2 }}
{{ include "fafnir.containerSecurity" . }}
resources: {{ toJson .resources }}
volumeMounts:
  - { name: data, mountPath: /var/lib/fafnir }
  - { name: config, mountPath: /etc/fafnir, readOnly: true }
  {{- if .root.Values.tls.enabled }}
  - { name: certificate, mountPath: /etc/fafnir-tls, readOnly: true }
  {{- end }}
  {{- with .root.Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* Ports and probes of a service, of (root, component, port). Alive is that it answers; ready, that it takes requests. */}}
{{- define "fafnir.doors" -}}
ports:
  {{- if ne .component "sim" }}
  - { name: service, containerPort: {{ .port }} }
  {{- end }}
  - { name: operations, containerPort: {{ add .port 1000 }} }
livenessProbe:
  httpGet: { path: /healthz, port: operations, scheme: {{ include "fafnir.probe" .root }} }
  initialDelaySeconds: 10
  periodSeconds: 10
  timeoutSeconds: 3
  failureThreshold: 6
readinessProbe:
  httpGet: { path: /readyz, port: operations, scheme: {{ include "fafnir.probe" .root }} }
  periodSeconds: 3
  timeoutSeconds: 2
  failureThreshold: 2
lifecycle:
  # Whoever still sends here learns meanwhile that this pod ends.
  preStop: { sleep: { seconds: 5 } }
{{- end }}

{{/* What a pod has beside its containers, of (root, component). The data volume is added where it is not the engine's. */}}
{{- define "fafnir.pod" -}}
serviceAccountName: {{ include "fafnir.fullname" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
# 5 s of preStop and at most 25 s of draining.
terminationGracePeriodSeconds: 45
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: { type: RuntimeDefault }
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
{{- with .root.Values.nodeSelector }}
nodeSelector: {{ toJson . }}
{{- end }}
{{- with .root.Values.tolerations }}
tolerations: {{ toJson . }}
{{- end }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "fafnir.selector" . | nindent 8 }}
{{- end }}
{{- define "fafnir.volumes" -}}
- name: config
  configMap: { name: {{ include "fafnir.fullname" .root }} }
{{- if .root.Values.tls.enabled }}
{{ include "fafnir.certificateVolume" . }}
{{- end }}
{{- if ne .component "trade-engine" }}
- name: data
  emptyDir: { sizeLimit: {{ .root.Values.scratchSize }} }
{{- end }}
{{- with .root.Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}
