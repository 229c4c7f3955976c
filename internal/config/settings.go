package config

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Origin is where an effective value comes from. The zero Origin: the default.
type Origin struct {
	File string
	Line int // from 1
}

// String is "default" or "agent.yaml:14".
func (o Origin) String() string {
	if o.File == "" {
		return "default"
	}
	return o.File + ":" + strconv.Itoa(o.Line)
}

// Setting is one effective value.
type Setting struct {
	Path    string // "people[2].last_day"
	Value   string // as it would be written in YAML; "[]" for an empty list
	Origin  Origin
	Restart bool // a change takes effect at the next start only
}

// Change is one difference between two settings.
type Change struct {
	Path    string
	Old     string // "" where it is new
	New     string // "" where it is gone
	Restart bool   // takes effect at the next start only
}

// String is `log.level: "info" -> "debug"`.
func (c Change) String() string {
	show := func(s string) string {
		if s == "" {
			return "-"
		}
		return s
	}
	return c.Path + ": " + show(c.Old) + " -> " + show(c.New)
}

// Settings is every effective value, in the order of the documents; entries of
// lists one by one.
func (a *Agent) Settings() []Setting {
	return a.flatten(agentKeys, reflect.ValueOf(a).Elem())
}

// Settings is every effective value, in the order of the documents.
func (c *Console) Settings() []Setting {
	return c.flatten(consoleKeys, reflect.ValueOf(c).Elem())
}

// Listed is the settings of either program.
type Listed interface{ Settings() []Setting }

// Diff is what changed from old to new, in the order of the documents. Entries
// of lists are compared by their position.
func Diff(old, new Listed) []Change {
	was, now := old.Settings(), new.Settings()
	before := make(map[string]string, len(was))
	for _, s := range was {
		before[s.Path] = s.Value
	}
	var out []Change
	after := make(map[string]bool, len(now))
	for _, s := range now {
		after[s.Path] = true
		if v, there := before[s.Path]; !there || v != s.Value {
			out = append(out, Change{Path: s.Path, Old: v, New: s.Value, Restart: s.Restart})
		}
	}
	for _, s := range was {
		if !after[s.Path] {
			out = append(out, Change{Path: s.Path, Old: s.Value, Restart: s.Restart})
		}
	}
	return out
}

// flatten lists the values below v.
func (s *source) flatten(keys []Key, v reflect.Value) []Setting {
	restart := make(map[string]bool, len(keys))
	for i := range keys {
		restart[keys[i].Path] = keys[i].Restart
	}
	var out []Setting
	add := func(v reflect.Value, path, key string) {
		out = append(out, Setting{path, yamlText(v), s.origin(path), restart[key]})
	}
	var walk func(v reflect.Value, path, key string)
	walk = func(v reflect.Value, path, key string) {
		switch {
		case v.Kind() == reflect.Struct:
			for _, f := range fields(v.Type()) {
				walk(v.Field(f.index), join(path, f.name), join(key, f.name))
			}
		case v.Kind() == reflect.Map && v.Len() > 0:
			names := v.MapKeys()
			slices.SortFunc(names, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
			for _, n := range names {
				walk(v.MapIndex(n), join(path, n.String()), join(key, "*"))
			}
		case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Struct && v.Len() > 0:
			for i := range v.Len() {
				walk(v.Index(i), fmt.Sprintf("%s[%d]", path, i), key+"[]")
			}
		default:
			add(v, path, key)
		}
	}
	walk(v, "", "")
	return out
}

func (s *source) origin(path string) Origin {
	if pl, ok := s.places[path]; ok {
		return Origin{s.file, pl.line}
	}
	return Origin{}
}

// yamlText is a value as it would be written in YAML, on one line.
func yamlText(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case time.Duration:
		return FormatDuration(x)
	case Size:
		return x.String()
	case Clock:
		return strconv.Quote(x.String())
	case Date:
		if x == "" {
			return `""`
		}
		return string(x)
	}
	switch v.Kind() {
	case reflect.Map:
		return "{}" // others are told key by key
	case reflect.Slice:
		b := []byte{'['}
		for i := range v.Len() {
			if i > 0 {
				b = append(b, ", "...)
			}
			b = append(b, yamlText(v.Index(i))...)
		}
		return string(append(b, ']'))
	case reflect.String:
		return strconv.Quote(v.String())
	}
	return fmt.Sprint(v.Interface())
}
