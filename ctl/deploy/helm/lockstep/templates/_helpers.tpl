{{- define "lockstep.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "lockstep.labels" -}}
app.kubernetes.io/name: lockstep
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "lockstep.selector" -}}
app.kubernetes.io/name: lockstep
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "lockstep.kubernetes" -}}
[kubernetes]
class = {{ .Values.loadBalancerClass | quote }}
default_class = {{ .Values.defaultClass }}
namespace = {{ .Release.Namespace | quote }}
{{- if .Values.gatewayApi.enabled }}
gateway_controller = {{ .Values.gatewayApi.controllerName | quote }}
{{- end }}
{{- end }}

{{- define "lockstep.pod" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "lockstep.env" -}}
- name: LOCKSTEP_LOG_FORMAT
  value: {{ .Values.log.format }}
- name: NODE_NAME
  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
{{- end }}
