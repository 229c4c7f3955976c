package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// AgentSchema is the JSON schema (draft 2020-12) of the agent's settings, for
// completion and checks in editors: the bytes of configs/agent.schema.json. The
// loader checks more than a schema can say.
func AgentSchema() []byte {
	return schema("Sekisho agent", agentKeys, reflect.ValueOf(DefaultAgent()).Elem())
}

// ConsoleSchema is the JSON schema of the console's settings: the bytes of
// configs/console.schema.json.
func ConsoleSchema() []byte {
	return schema("Sekisho console", consoleKeys, reflect.ValueOf(DefaultConsole()).Elem())
}

// object is a JSON object that keeps the order of its keys.
type object []member

type member struct {
	key   string
	value any
}

// MarshalJSON writes the members in their order.
func (o object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		k, err := json.Marshal(m.key)
		if err != nil {
			return nil, err
		}
		v, err := json.Marshal(m.value)
		if err != nil {
			return nil, err
		}
		b.Write(k)
		b.WriteByte(':')
		b.Write(v)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

func schema(title string, keys []Key, defaults reflect.Value) []byte {
	s := schemer{keys: map[string]*Key{}}
	for i := range keys {
		s.keys[keys[i].Path] = &keys[i]
	}
	root := append(object{{"$schema", "https://json-schema.org/draft/2020-12/schema"}, {"title", title}}, s.of(defaults, "", true)...)
	data, err := json.Marshal(root)
	if err != nil {
		panic("config: schema: " + err.Error()) // made of texts and numbers only
	}
	var out bytes.Buffer
	if err := json.Indent(&out, data, "", "  "); err != nil {
		panic("config: schema: " + err.Error())
	}
	out.WriteByte('\n')
	return out.Bytes()
}

type schemer struct{ keys map[string]*Key }

// of is the schema of the value at a key. Values below the entry of a list have
// no defaults worth telling.
func (s *schemer) of(v reflect.Value, key string, defaults bool) object {
	t := v.Type()
	switch {
	case t.Kind() == reflect.Struct:
		props, required := object{}, []string{}
		for _, f := range fields(t) {
			at := join(key, f.name)
			props = append(props, member{f.name, s.of(v.Field(f.index), at, defaults)})
			if k := s.keys[at]; k != nil && k.Required {
				required = append(required, f.name)
			}
		}
		o := object{{"type", orNull("object")}, {"additionalProperties", false}, {"properties", props}}
		if len(required) > 0 {
			o = append(o, member{"required", required})
		}
		return o
	case t.Kind() == reflect.Map:
		return object{{"type", orNull("object")}, {"additionalProperties", s.of(reflect.New(t.Elem()).Elem(), join(key, "*"), false)}}
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct:
		return object{{"type", orNull("array")}, {"items", s.of(reflect.New(t.Elem()).Elem(), key+"[]", false)}}
	case t.Kind() == reflect.Slice:
		one := s.scalar(t.Elem(), s.keys[key])
		o := object{{"anyOf", []object{append(object{{"type", "array"}}, member{"items", one}), one, {{"type", "null"}}}}}
		if defaults && v.Len() > 0 {
			o = append(o, member{"default", v.Interface()})
		}
		return s.describe(o, key)
	}
	o := s.scalar(t, s.keys[key])
	if k := s.keys[key]; k.Default == "" && defaults && !v.IsZero() || t.Kind() == reflect.Bool && defaults {
		var d any = v.Interface()
		switch x := d.(type) {
		case time.Duration:
			d = FormatDuration(x)
		case fmt.Stringer:
			d = x.String()
		}
		o = append(o, member{"default", d})
	}
	return s.describe(o, key)
}

func orNull(t string) []string { return []string{t, "null"} }

func (s *schemer) describe(o object, key string) object {
	k := s.keys[key]
	text := k.JA + "\n" + k.EN
	if k.Default != "" {
		text += "\n(" + k.Default + ")"
	}
	return append(o, member{"description", text})
}

// scalar is the schema of one value. What looks like a number to YAML is taken
// as text where text is wanted, as the loader does.
func (s *schemer) scalar(t reflect.Type, k *Key) object {
	switch {
	case len(k.Enum) > 0:
		return object{{"enum", k.Enum}}
	case t == durationType:
		return object{{"type", "string"}, {"pattern", `^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?$`}}
	case t == sizeType || k.sizeToo:
		return object{{"type", []string{"string", "integer"}}, {"pattern", `^[0-9]+ ?([KkMmGg][Ii]?)?[Bb]?$`}, {"minimum", max(k.Min, 0)}}
	case t == dateType:
		return object{{"type", "string"}, {"pattern", `^[0-9]{4}-[0-9]{2}-[0-9]{2}$`}}
	case t == clockType:
		return object{{"type", "string"}, {"pattern", `^[0-9]{1,2}:[0-9]{2}$`}}
	case t.Kind() == reflect.Bool:
		return object{{"type", "boolean"}}
	case t.Kind() == reflect.String:
		return object{{"type", []string{"string", "number"}}}
	}
	return object{{"type", "integer"}, {"minimum", k.Min}, {"maximum", k.Max}}
}

// Reference writes the table of all settings of a program ("agent", "console")
// in a language ("ja", "en") as Markdown, for docs/configure.md.
func Reference(w io.Writer, program, lang string) error {
	keys, values := agentKeys, reflect.ValueOf(DefaultAgent()).Elem()
	if program == "console" {
		keys, values = consoleKeys, reflect.ValueOf(DefaultConsole()).Elem()
	}
	head := "| キー | 既定値 | 範囲 | 例 | 意味 |\n| --- | --- | --- | --- | --- |\n"
	if lang != "ja" {
		head = "| key | default | range | example | meaning |\n| --- | --- | --- | --- | --- |\n"
	}
	b := []byte(head)
	for i := range keys {
		k := &keys[i]
		v, found := lookup(values, k.Path)
		meaning := k.EN
		if lang == "ja" {
			meaning = k.JA
		}
		switch {
		case k.Required && lang == "ja":
			meaning += "必須。"
		case k.Required:
			meaning += " Required."
		case k.Restart && lang == "ja":
			meaning += "再起動で有効。"
		case k.Restart:
			meaning += " Takes effect at the next start."
		}
		def := words(k.Default)
		if def == "" && found {
			def = code(yamlText(v))
		}
		b = fmt.Appendf(b, "| `%s` | %s | %s | %s | %s |\n", k.Path, cell(def), cell(k.limits()), cell(code(k.Example)), cell(words(meaning)))
	}
	_, err := w.Write(b)
	return err
}

func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

// words is text that Markdown shows as it is.
func words(s string) string { return strings.NewReplacer(`\`, `\\`, "*", `\*`).Replace(s) }

// code is s as code of Markdown; "" and empty lists are left out.
func code(s string) string {
	if s == "" || s == `""` || s == "[]" || s == "{}" {
		return ""
	}
	return "`" + s + "`"
}

// limits is what values a key takes, if not all of its type.
func (k *Key) limits() string {
	if len(k.Enum) > 0 {
		return strings.Join(k.Enum, ", ")
	}
	if k.Min == 0 && k.Max == 0 {
		return ""
	}
	show := func(x int64) string { return strconv.FormatInt(x, 10) }
	if strings.TrimRight(k.Example, "0123456789") == k.Example { // a size or a duration, by its example's unit
		if _, err := ParseSize(k.Example); err == nil {
			show = func(x int64) string { return Size(x).String() }
		} else if _, err := ParseDuration(k.Example); err == nil {
			show = func(x int64) string { return FormatDuration(time.Duration(x)) }
		}
	}
	if k.sizeToo {
		return show(k.Min) + "-"
	}
	return show(k.Min) + " - " + show(k.Max)
}

// lookup is the value at a path that goes through no list and no mapping.
func lookup(v reflect.Value, path string) (reflect.Value, bool) {
	for name := range strings.SplitSeq(path, ".") {
		if v.Kind() != reflect.Struct {
			return v, false
		}
		fs := fields(v.Type())
		i := slices.IndexFunc(fs, func(f field) bool { return f.name == name })
		if i < 0 {
			return v, false
		}
		v = v.Field(fs[i].index)
	}
	return v, true
}
