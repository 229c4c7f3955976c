package confine

import (
	"testing"
)

// run is what the kernel does with a filter: the value that it returns.
func run(t *testing.T, p []instruction, arch, number uint32, args [6]uint64) uint32 {
	t.Helper()
	var a uint32
	for pc := 0; pc < len(p); pc++ {
		i := p[pc]
		jump := func(yes bool) {
			if yes {
				pc += int(i.yes)
			} else {
				pc += int(i.no)
			}
		}
		switch i.op {
		case opLoad:
			switch {
			case i.k == dataNumber:
				a = number
			case i.k == dataArch:
				a = arch
			case i.k >= dataArgs && i.k < dataArgs+48 && i.k%8 == 0:
				a = uint32(args[(i.k-dataArgs)/8])
			default:
				t.Fatalf("instruction %d loads from %d", pc, i.k)
			}
		case opEqual:
			jump(a == i.k)
		case opAtLeast:
			jump(a >= i.k)
		case opAnySet:
			jump(a&i.k != 0)
		case opAnd:
			a &= i.k
		case opReturn:
			return i.k
		default:
			t.Fatalf("instruction %d is %#x", pc, i.op)
		}
	}
	t.Fatal("the filter has no end")
	return 0
}

func TestAFilterLetsThroughWhatItsRulesSayAndNothingElse(t *testing.T) {
	const here, refused, unknown = 7, retErrno | errPerm, retErrno | errNoSys
	p := assemble(here, []rule{
		{number: 5}, {number: 1}, {number: 2}, {number: 9}, {number: 3}, {number: 9},
		{10, condition{arg: 0, none: 0x30}},
		{11, condition{arg: 2, not: 6}},
		{12, condition{arg: 1, one: []uint32{1, 16}}},
	}, 4)
	tests := []struct {
		number uint32
		args   [6]uint64
		want   uint32
	}{
		{0, [6]uint64{}, refused}, {1, [6]uint64{}, retAllow}, {2, [6]uint64{}, retAllow}, {3, [6]uint64{}, retAllow},
		{4, [6]uint64{}, unknown}, {5, [6]uint64{}, retAllow}, {6, [6]uint64{}, refused}, {8, [6]uint64{}, refused},
		{9, [6]uint64{}, retAllow}, {13, [6]uint64{}, refused}, {1 << 30, [6]uint64{}, refused}, {0xffffffff, [6]uint64{}, refused},
		{10, [6]uint64{0}, retAllow}, {10, [6]uint64{0x0f}, retAllow}, {10, [6]uint64{0x10}, refused}, {10, [6]uint64{0x31}, refused},
		{11, [6]uint64{0, 0, 2}, retAllow}, {11, [6]uint64{0, 0, 5}, retAllow}, {11, [6]uint64{0, 0, 6}, refused}, {11, [6]uint64{0, 0, 7}, refused},
		{12, [6]uint64{0, 1}, retAllow}, {12, [6]uint64{0, 16}, retAllow}, {12, [6]uint64{0, 17}, refused}, {12, [6]uint64{1, 0}, refused},
	}
	for _, tt := range tests {
		if got := run(t, p, here, tt.number, tt.args); got != tt.want {
			t.Errorf("call %d %v: %#x, want %#x", tt.number, tt.args, got, tt.want)
		}
		if got := run(t, p, here+1, tt.number, tt.args); got != retKill {
			t.Errorf("call %d of another architecture: %#x", tt.number, got)
		}
	}
}
