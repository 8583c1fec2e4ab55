// AXI4-Lite port of a kernel or of the accelerator: the handshakes, and the first four registers as Vitis HLS lays them out
// (ap_ctrl_hs):
//   0x00  control: ap_start (0), ap_done (1, cleared by reading), ap_idle (2), ap_ready (3), auto_restart (7)
//   0x04  global interrupt enable (0)    0x08  interrupt enable: done (0), ready (1)    0x0c  interrupt status
//
// The other registers are whose they are: `write` says, for a cycle, that `write_data` under `write_mask` goes to
// `write_address`; `read_value` is the value at `read_address`, in the same cycle.
module edgemoe_axi_lite #(
    parameter int ADDRESS_BITS = 6
) (
    input  logic ap_clk,
    input  logic ap_rst_n,
    input  logic [ADDRESS_BITS-1:0] s_axi_control_AWADDR,
    input  logic s_axi_control_AWVALID,
    output logic s_axi_control_AWREADY,
    input  logic [31:0] s_axi_control_WDATA,
    input  logic [3:0] s_axi_control_WSTRB,
    input  logic s_axi_control_WVALID,
    output logic s_axi_control_WREADY,
    output logic [1:0] s_axi_control_BRESP,
    output logic s_axi_control_BVALID,
    input  logic s_axi_control_BREADY,
    input  logic [ADDRESS_BITS-1:0] s_axi_control_ARADDR,
    input  logic s_axi_control_ARVALID,
    output logic s_axi_control_ARREADY,
    output logic [31:0] s_axi_control_RDATA,
    output logic [1:0] s_axi_control_RRESP,
    output logic s_axi_control_RVALID,
    input  logic s_axi_control_RREADY,
    output logic interrupt,

    output logic ap_start,
    input  logic ap_done,
    input  logic ap_idle,
    input  logic ap_ready,

    output logic write,
    output logic [ADDRESS_BITS-1:0] write_address,
    output logic [31:0] write_data,
    output logic [31:0] write_mask,
    output logic [ADDRESS_BITS-1:0] read_address,
    input  logic [31:0] read_value
);

  // Writes: an address and a datum, in either order, then the response.
  logic [3:0] strobe;
  logic have_address;
  logic have_data;

  assign s_axi_control_AWREADY = !have_address;
  assign s_axi_control_WREADY = !have_data;
  assign s_axi_control_BRESP = 2'b00;
  assign write = have_address && have_data && !s_axi_control_BVALID;
  assign write_mask = {{8{strobe[3]}}, {8{strobe[2]}}, {8{strobe[1]}}, {8{strobe[0]}}};

  always_ff @(posedge ap_clk)
    if (!ap_rst_n) begin
      have_address <= 1'b0;
      have_data <= 1'b0;
      s_axi_control_BVALID <= 1'b0;
    end else begin
      if (s_axi_control_AWREADY && s_axi_control_AWVALID) have_address <= 1'b1;
      if (s_axi_control_WREADY && s_axi_control_WVALID) have_data <= 1'b1;
      if (write) begin
        have_address <= 1'b0;
        have_data <= 1'b0;
        s_axi_control_BVALID <= 1'b1;
      end else if (s_axi_control_BREADY) begin
        s_axi_control_BVALID <= 1'b0;
      end
    end

  always_ff @(posedge ap_clk) begin
    if (s_axi_control_AWREADY) write_address <= s_axi_control_AWADDR;
    if (s_axi_control_WREADY) begin
      write_data <= s_axi_control_WDATA;
      strobe <= s_axi_control_WSTRB;
    end
  end

  // Control.
  logic auto_restart;
  logic done;
  logic global_enable;
  logic [1:0] enable;
  logic [1:0] status;
  logic read_control;
  logic write_control;

  assign write_control = write && write_address == ADDRESS_BITS'('h0) && strobe[0];
  assign interrupt = global_enable && |(enable & status);

  always_ff @(posedge ap_clk)
    if (!ap_rst_n) begin
      ap_start <= 1'b0;
      auto_restart <= 1'b0;
      done <= 1'b0;
      global_enable <= 1'b0;
      enable <= 2'b00;
      status <= 2'b00;
    end else begin
      if (write_control && write_data[0]) ap_start <= 1'b1;
      else if (ap_ready) ap_start <= auto_restart;
      if (write_control) auto_restart <= write_data[7];
      if (ap_done) done <= 1'b1;
      else if (read_control) done <= 1'b0;
      if (write && write_address == ADDRESS_BITS'('h4) && strobe[0]) global_enable <= write_data[0];
      if (write && write_address == ADDRESS_BITS'('h8) && strobe[0]) enable <= write_data[1:0];
      // A bit that is written 1 toggles; an event sets its bit.
      status <= (status ^ (write && write_address == ADDRESS_BITS'('hc) && strobe[0] ? write_data[1:0] : 2'b00))
          | (enable & {ap_ready, ap_done});
    end

  // Reads.
  logic [31:0] value;

  assign s_axi_control_ARREADY = !s_axi_control_RVALID;
  assign s_axi_control_RRESP = 2'b00;
  assign read_address = s_axi_control_ARADDR;
  assign read_control = s_axi_control_ARREADY && s_axi_control_ARVALID && s_axi_control_ARADDR == ADDRESS_BITS'('h0);

  always_comb
    case (s_axi_control_ARADDR)
      ADDRESS_BITS'('h0): value = {24'd0, auto_restart, 3'd0, ap_ready, ap_idle, done, ap_start};
      ADDRESS_BITS'('h4): value = {31'd0, global_enable};
      ADDRESS_BITS'('h8): value = {30'd0, enable};
      ADDRESS_BITS'('hc): value = {30'd0, status};
      default: value = read_value;
    endcase

  always_ff @(posedge ap_clk)
    if (!ap_rst_n) s_axi_control_RVALID <= 1'b0;
    else if (s_axi_control_ARREADY) s_axi_control_RVALID <= s_axi_control_ARVALID;
    else if (s_axi_control_RREADY) s_axi_control_RVALID <= 1'b0;

  always_ff @(posedge ap_clk) if (s_axi_control_ARREADY) s_axi_control_RDATA <= value;

endmodule
